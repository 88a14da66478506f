"""Results of the original artifact, read so that they are drawn, compared and checked like this program's own.

What its scripts leave was read in Akemiiii/prism-mlsys-ae, commit 3b00014, ``eval_all.sh`` and ``evaluation/``:

    outputs/<project>/<model>/<tag>/
        <benchmark>/<model>-<scale>-temperature-<T>.jsonl               raw: one answered question per line
        logs/<model>-<scale>__<benchmark>__temp-<T>__gpu-<id>.log       summary: acceptance length, acceptance rates
    outputs/<project>/<model>/latest                                    a link to a tag; links are not followed
    e2e_*.csv, benchmark_results.csv                                    summary: serving runs

The contract:

- Raw data become cells. ``accept_length`` of a question lists the drafts that each round accepted; the list becomes the
  histogram of a `Sample`, and from there on every number takes the way of this program's own. The engine of such a cell
  is "artifact", so it never stands beside a measurement of this program without being called so.
- Summaries become no cells. A log's numbers are compared with those of its raw data, a CSV's mean with its rows, and
  what has no raw data is listed as a summary.
- Nothing is averaged, chosen or repaired. A file is refused, with its line, when a question occurs twice, when it holds
  or may hold more than one run, when it broke off, when two runs of one cell are there, when log and answers disagree,
  and when its number cannot be told from those that the artifact's drawing scripts fall back to.
- Which drafter a folder is, the suite says, by the checkpoint folder it names: the artifact's PRISM is PRISM* here.

Everything in this package is pure but `find`, which reads files.
"""
