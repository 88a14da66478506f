"""From a `DrafterConfig` to a layout's config.json: the other direction of `configs`.

What a layout cannot say, or its readers would not do, is a ValueError with the reason. Which hidden states a drafter
reads stands under `NOTE` where the layout has no place for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prism_ae.drafters.layouts.configs import FORMAT, NOTE, sglang_capture, shortest

if TYPE_CHECKING:
    from prism_ae.drafters.config import DrafterConfig

Data = dict[str, Any]


def own(config: DrafterConfig, dtype: str) -> Data:
    """Any drafter; ``dtype`` is not noted."""
    return {"format": FORMAT, **config.fields()}


_FUSED = 3
"""Hidden states that PRISM* and EAGLE-3 fuse in the authors' code, which no config changes."""


def large_drafter(config: DrafterConfig, dtype: str) -> Data:
    """PRISM, PRISM*, EAGLE-2 and HASS for the authors' torch code."""
    _check_authors(config)
    _check_whole_vocabulary(config)
    steps = {str(step): module for step, module in enumerate(config.step_mapping)}
    return {
        "eagle_config": config.layer.to_hf() | {"torch_dtype": dtype},
        "num_steps": len(steps),
        "num_step_models": config.modules,
        "step_mapping": steps,
        "use_adapter": False,
        **_note(config),
    }


def eagle3(config: DrafterConfig, dtype: str) -> Data:
    """EAGLE-3 for the authors' torch code."""
    _check_authors(config)
    return _eagle3(config, dtype)


def _eagle3(config: DrafterConfig, dtype: str) -> Data:
    # "bias" is that of the hidden states' projection; the readers of this config take it for true where it is absent.
    own_vocabulary = {"bias": False, "draft_vocab_size": config.draft_vocab_size}
    return config.layer.to_hf() | {"torch_dtype": dtype} | own_vocabulary | _note(config)


def sglang_eagle3(config: DrafterConfig, dtype: str) -> Data:
    """EAGLE-3 for stock SGLang, which captures in the order of the layers and does not project a single state."""
    capture = list(config.aux_hidden_layers)
    if len(capture) < 2 or capture[0] < 1 or capture != sorted(set(capture)):
        raise ValueError(f"SGLang reads two or more hidden states from 1 on in ascending order, not {capture}")
    return _eagle3(config, dtype) | _sglang("LlamaForCausalLMEagle3") | {"eagle_config": sglang_capture(capture)}


def sglang_ld(config: DrafterConfig, dtype: str) -> Data:
    """PRISM for the authors' fork of SGLang."""
    if config.modules != 2:
        found = "one module" if config.modules == 1 else f"{config.modules} modules"
        raise ValueError(f"it has {found}, where the authors' SGLang runs two whatever the folder holds")
    if config.layer.num_hidden_layers != 1:
        raise ValueError(f"its modules have {config.layer.num_hidden_layers} layers, where SGLang's have one")
    _check_fused(config)
    _check_whole_vocabulary(config)
    if shortest(config.step_mapping) != tuple(range(config.modules)):
        steps = list(config.step_mapping)
        raise ValueError(f"its steps run modules {steps}, where SGLang's run 0, 1, … and then the last")
    return config.layer.to_hf() | {"torch_dtype": dtype} | _sglang("LlamaForCausalLMLD")


def sglang_prism(config: DrafterConfig, dtype: str) -> Data:
    """PRISM* for the authors' fork of SGLang."""
    return sglang_ld(config, dtype) | _sglang("LlamaForCausalLMPRISM") | _note(config)


def sglang_eagle(config: DrafterConfig, dtype: str) -> Data:
    """EAGLE-2 and HASS for SGLang."""
    data = config.layer.to_hf() | {"torch_dtype": dtype} | _sglang("LlamaForCausalLMEagle")
    # Not as a key of SGLang's own: it is told the file by an option, and without it drafts among all tokens.
    size = config.draft_vocab_size
    return data if size is None else data | {NOTE: {"draft_vocab_size": size}}


def _sglang(architecture: str) -> Data:
    # SGLang would take the embedding for the head, EAGLE-3's own included, where they are said to be tied.
    return {"architectures": [architecture], "tie_word_embeddings": False}


def _check_authors(config: DrafterConfig) -> None:
    """Raises ValueError for what the authors' torch code has no place for."""
    _check_fused(config)
    if config.layer.rope_scaling is not None:
        raise ValueError("its RoPE is stretched as Llama-3.1's, which the authors' code does not know")


def _check_fused(config: DrafterConfig) -> None:
    if config.aux_hidden_layers and len(config.aux_hidden_layers) != _FUSED:
        raise ValueError(
            f"it reads {len(config.aux_hidden_layers)} hidden state(s), where the authors' code fuses {_FUSED}"
        )


def _check_whole_vocabulary(config: DrafterConfig) -> None:
    if config.draft_vocab_size is not None:
        raise ValueError(f"it drafts among {config.draft_vocab_size} tokens, where its readers draft among all")


def _note(config: DrafterConfig) -> Data:
    return {NOTE: {"capture": list(config.aux_hidden_layers)}} if config.aux_hidden_layers else {}
