"""Which keys of a Hugging Face config change what a Llama computes. No torch: a plan asks what a folder holds.

A key is used, or known not to matter, or it says what is usual anyway; every other one is refused by name. So a
variant of Llama that this project does not compute is never run as if it were a plain one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from prism_ae.errors import CheckpointError

USED = {
    "architectures", "attention_bias", "head_dim", "hidden_act", "hidden_size", "intermediate_size",
    "max_position_embeddings", "mlp_bias", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
    "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta", "tie_word_embeddings", "vocab_size",
}  # fmt: skip
"""Read by `LlamaConfig.from_hf`, which refuses the values that it cannot express."""

_IRRELEVANT = {
    # About the file and the program that wrote it.
    "torch_dtype", "dtype", "transformers_version", "transformers.js_config", "finetuning_task", "is_llama_config",
    "tokenizer_class", "prefix", "task_specific_params", "problem_type", "target_model_type",
    # Tokens. Where an answer ends is read apart.
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id",
    "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bos_token", "eos_token", "pad_token",
    # Training.
    "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "classifier_dropout",
    "initializer_range", "gradient_checkpointing", "label2id", "id2label", "num_labels",
    # How transformers computes and what it returns: the same numbers up to rounding.
    "pretraining_tp", "use_cache", "return_dict", "output_attentions", "output_hidden_states", "torchscript",
    "use_bfloat16", "low_cpu_mem_usage", "chunk_size_feed_forward", "attn_implementation", "use_flash_attention",
    "use_flash_attention_2", "use_sdpa", "is_decoder",
    # Defaults of its generation.
    "do_sample", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
    "diversity_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "max_length",
    "min_length", "max_new_tokens", "num_beams", "num_beam_groups", "num_return_sequences", "early_stopping",
    "output_scores", "return_dict_in_generate", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens",
    # Lengths that nothing is computed from. `max_window_layers` counts for a sliding window alone, which is refused.
    "max_sequence_length", "model_max_length", "max_window_layers",
}  # fmt: skip

_IRRELEVANT_BEGINNINGS = ("_", "unsloth_")
"""transformers' own notes, as ``_name_or_path``; and those of a training program."""

_USUAL: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "rope_is_neox_style": (True,),
    "partial_rotary_factor": (1,),
    "rotary_pct": (1,),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "num_nextn_predict_layers": (0,),
}
"""Key -> the values that say what a Llama does without it. None is one of them for each."""

_QUANTISATION = ("quantization_config", "compression_config", "quantization", "quant_method", "quantize_config")

PLAIN_ONLY = (
    "what is computed here is a plain Llama: of a target, --engine sglang may measure more; of a drafter no engine does"
)


def check_keys(config: Mapping[str, Any], where: str, used: Collection[str] = ()) -> None:
    """Whether a config says nothing that would be left out.

    Args:
        config: a Hugging Face config of a Llama.
        where: its file, for messages.
        used: keys that the caller reads besides those of `LlamaConfig.from_hf`.

    Raises:
        CheckpointError: a key that changes what is computed, or one that is not known and is not off.
    """
    check_quantisation(config, where)
    for key, value in config.items():
        if key not in USED and key not in used and not _matters_not(key, value, config):
            raise refused(key, value, where)


def check_quantisation(config: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError for a config that says that the weights are quantised."""
    for key in _QUANTISATION:
        if said := config.get(key):
            method = said.get("quant_method") or said.get("bits") if isinstance(said, Mapping) else said
            raise CheckpointError(f"{where}: the weights are quantised ({key}: method {method})", UNQUANTISED)


UNQUANTISED = (
    "use the checkpoint that is not quantised; --engine sglang measures quantised targets, and no engine quantised "
    "drafters"
)


def refused(key: str, value: Any, where: str) -> CheckpointError:
    """The error for a key with a value that cannot be honoured."""
    return CheckpointError(f"{where}: {key} is {shown(value)}, which is not supported", PLAIN_ONLY)


def shown(value: Any) -> str:
    """A value of a config as a message repeats it: cut if it is long."""
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _matters_not(key: str, value: Any, config: Mapping[str, Any]) -> bool:
    if value is None or key in _IRRELEVANT or key.startswith(_IRRELEVANT_BEGINNINGS):
        return True
    if key in _USUAL:
        return type(value) in (bool, int, float, str) and value in _USUAL[key]
    if key == "layer_types":
        return isinstance(value, list) and set(value) <= {"full_attention"}
    if key == "sliding_window":
        return config.get("use_sliding_window") is False
    return value is False or value in ("", [], {})
