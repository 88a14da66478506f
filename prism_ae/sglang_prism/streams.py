"""Streams of OpenAI's chat API: ``top_logprobs`` of each token, where a round sends several tokens at once.

SGLang 0.5.17 gives all tokens of a streamed chunk the alternatives of its first token.
"""

from __future__ import annotations

from typing import Any


def each_its_own(serving: Any, logprobs: Any, use_token_index: bool = False) -> Any:
    """Before the log-probabilities of a chunk, or of a whole answer, are written: alternatives per token."""
    from prism_ae.sglang_prism.registration import is_ours

    several = len(logprobs.top_logprobs or ()) == len(logprobs.tokens)
    if several and is_ours(serving.tokenizer_manager.server_args):
        use_token_index = True
    return (serving, logprobs), {"use_token_index": use_token_index}


HOOKS = [
    (
        "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._process_logprobs_tokens",
        each_its_own,
        "before",
    ),
]
"""For the HTTP process alone: the others need not import its modules."""
