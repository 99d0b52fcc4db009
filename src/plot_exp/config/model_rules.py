"""What a model, its adapter and its optimizer allow beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from plot_exp.config.schema import Config


def an_adapter_is_there_to_be_off(config: Config) -> Iterator[str]:
    if config.reference_form != "adapter_off":
        return
    if config.reference != "policy":
        yield (
            f"reference_form=adapter_off with reference={config.reference}: that model has weights "
            "of its own; write reference_form=auto"
        )
    elif config.model.lora.rank is None:
        yield (
            "reference_form=adapter_off: every weight is trained, so there is no adapter to switch "
            "off; write model.lora.rank=16, say, or reference_form=auto"
        )


def heads_divide_the_hidden_size(config: Config) -> Iterator[str]:
    tiny = config.model.tiny
    if tiny.hidden_size % (2 * tiny.heads):
        yield (
            f"model.tiny.hidden_size={tiny.hidden_size}: must be a multiple of twice "
            f"model.tiny.heads={tiny.heads}, since rotary positions turn pairs of dimensions"
        )


def weights_can_be_kept_small(config: Config) -> Iterator[str]:
    lora, sharded = config.model.lora, config.trainer.strategy == "fsdp"
    if lora.quantised is not None and lora.rank is None:
        yield (
            f"model.lora.quantised={lora.quantised}: quantised weights are not trained; write "
            "model.lora.rank=16, say, to train an adapter beside them, or leave it out"
        )
    for key, asked in {
        f"model.lora.quantised={lora.quantised}": lora.quantised is not None,
        "optimizer.eight_bit=true": config.optimizer.eight_bit,
        "trainer.compile=true": config.trainer.compile,
    }.items():
        if asked and sharded:
            yield f"{key} with trainer=fsdp: this has not been made to work; write trainer=ddp"
    for key, value in {
        "trainer.dropout": config.trainer.dropout,
        "model.lora.dropout": lora.dropout,
    }.items():
        if config.trainer.compile and value:
            yield (
                f"trainer.compile=true with {key}={value}: masks that belong to tokens are drawn "
                "outside of what is compiled; write one or the other"
            )
    if config.model.weights == "random" and lora.export == "adapter" and lora.rank is not None:
        yield (
            "model.lora.export=adapter with model.weights=random: the weights beneath are written "
            "nowhere; write model.lora.export=merged"
        )


def an_adapters_settings_have_an_adapter(config: Config) -> Iterator[str]:
    lora = config.model.lora
    if lora.rank is not None:
        return
    set_for_one = {
        f"alpha={lora.alpha}": lora.alpha is not None,
        f"dropout={lora.dropout}": bool(lora.dropout),
        "rslora=true": lora.rslora,
        "dora=true": lora.dora,
        "export=adapter": lora.export == "adapter",
    }
    for setting, asked in set_for_one.items():
        if asked:
            yield (
                f"model.lora.{setting}: every weight is trained, so that there is no adapter; "
                "write model.lora.rank=16, say, to train one, or leave it out"
            )


def an_average_has_digits(config: Config) -> Iterator[str]:
    model, precision = config.model, config.trainer.precision
    if config.optimizer.ema is None or model.lora.rank is not None:
        return
    if precision == "bf16-true" or model.dtype in ("bfloat16", "float16"):
        key = "trainer.precision" if precision == "bf16-true" else "model.dtype"
        value = precision if precision == "bf16-true" else model.dtype
        yield (
            f"optimizer.ema={config.optimizer.ema} with {key}={value}: the average's small changes "
            "round away in half precision; write model.dtype=float32 and "
            "trainer.precision=auto"
        )


def attention_heads_fit(config: Config) -> Iterator[str]:
    shape = config.model.shape
    hidden, heads, groups = (
        shape.hidden_size,
        shape.num_attention_heads,
        shape.num_key_value_heads,
    )
    if hidden and heads and hidden % (2 * heads):
        yield (
            f"model.shape.hidden_size={hidden}: must be a multiple of twice "
            f"model.shape.num_attention_heads={heads}, since rotary positions turn pairs of "
            "dimensions"
        )
    if heads and groups and heads % groups:
        yield (
            f"model.shape.num_key_value_heads={groups}: must divide "
            f"model.shape.num_attention_heads={heads}"
        )


RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    an_adapter_is_there_to_be_off,
    heads_divide_the_hidden_size,
    weights_can_be_kept_small,
    an_adapters_settings_have_an_adapter,
    an_average_has_digits,
    attention_heads_fit,
)
