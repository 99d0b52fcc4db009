"""Reward models: any sequence classifier with one output, and Open-Assistant's GPT-NeoX class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.gpt_neox.configuration_gpt_neox import GPTNeoXConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXModel, GPTNeoXPreTrainedModel

from plot_exp.errors import UserError


class GPTNeoXRewardConfig(GPTNeoXConfig):
    """GPT-NeoX's configuration with `pooling`: `last`, the default, or `mean`."""

    model_type = "gpt_neox_reward_model"


class GPTNeoXRewardModel(GPTNeoXPreTrainedModel):
    """The layout of `OpenAssistant/oasst-rm-2-pythia-6.9b-epoch-1`.

    A GPT-NeoX backbone `gpt_neox` and one linear layer `out_proj` with a bias, on the last token
    that is not padding or on the mean over tokens. transformers knows no such class.
    """

    config_class = GPTNeoXRewardConfig

    def __init__(self, config: GPTNeoXRewardConfig) -> None:
        super().__init__(config)
        self.pooling = getattr(config, "pooling", None) or "last"
        if self.pooling not in ("last", "mean"):
            raise ValueError(f"pooling is {self.pooling!r}; expected last or mean")
        self.gpt_neox = GPTNeoXModel(config)
        self.out_proj = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Rewards as logits [B, 1].

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 0 where there is padding.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden = self.gpt_neox(
            input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        if self.pooling == "mean":
            weight = attention_mask[..., None].to(hidden.dtype)
            pooled = (hidden * weight).sum(1) / weight.sum(1)
        else:
            last = attention_mask.long().cumsum(1).argmax(1)
            pooled = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return SequenceClassifierOutput(logits=self.out_proj(pooled))


AutoConfig.register(GPTNeoXRewardConfig.model_type, GPTNeoXRewardConfig, exist_ok=True)
AutoModelForSequenceClassification.register(GPTNeoXRewardConfig, GPTNeoXRewardModel, exist_ok=True)


def load_reward_model(
    name: str,
    *,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """A classifier with one output, in eval mode, and its tokenizer.

    Safetensors are taken where they are; `pytorch_model.bin` is read as tensors alone.

    Args:
        name: a hub id or a directory.

    Raises:
        UserError: it cannot be loaded, lacks weights, or has another number of outputs.
    """
    from transformers import AutoTokenizer

    origin = str(Path(name).expanduser()) if name.startswith("~") else name
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(origin, **options)
        config = AutoConfig.from_pretrained(origin, **options)
        if config.model_type != GPTNeoXRewardConfig.model_type and config.num_labels != 1:
            raise ValueError(f"it has {config.num_labels} outputs, and a reward is one number")
        model, found = AutoModelForSequenceClassification.from_pretrained(
            origin, config=config, dtype=dtype, output_loading_info=True, **options
        )
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a broken file may raise nearly anything in there
        lines = str(error).strip().splitlines()
        why = lines[0].rstrip(".") if lines else type(error).__name__
        raise UserError(
            f"the reward model {name} could not be loaded ({why}); give a hub id that this machine "
            "can reach, or a directory with its config.json, weights and tokenizer"
        ) from error
    _give_padding(model, tokenizer)
    return model.eval(), tokenizer


def _give_padding(model: Any, tokenizer: Any) -> None:
    """Batches need a padding token; a model's own choice stays.

    A decoder's classifier pools the last token that is not padding. Where none is named, the end
    token would be the usual stand-in, and a response's own end would then be passed over.
    """
    text_config = model.config.get_text_config()
    if getattr(text_config, "pad_token_id", None) is None:
        own = tokenizer.pad_token_id
        if own is None or own == tokenizer.eos_token_id:
            own = next(id_ for id_ in range(3) if id_ != tokenizer.eos_token_id)
        text_config.pad_token_id = own
        model.config.pad_token_id = own
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = text_config.pad_token_id
