"""60 architectures of timm, the smallest of each family, float32 from ONNX against ONNX Runtime."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from acceptance.context import Context
from acceptance.fork_server import fork_server
from acceptance.row import Check, NotRun, Row, at_least, at_most, figure

__all__ = ["MODELS", "ROW"]

MODELS = (
    # Plain and residual convolutional networks.
    *("resnet10t", "resnet18d", "resnext26ts", "seresnext26t_32x4d", "skresnet18", "resnest14d"),
    *("res2net50_14w_8s", "wide_resnet50_2", "vgg11", "dla46_c", "densenet121", "cspresnet50"),
    *("darknet53", "ese_vovnet19b_slim_dw", "selecsls42", "hrnet_w18_small", "dpn48b"),
    *("gernet_s", "repvgg_a0", "inception_v3", "legacy_xception", "nf_regnet_b0"),
    *("regnetx_002", "regnety_002", "hgnetv2_b0"),
    # Small ones for phones.
    *("mobilenetv2_035", "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "mobileone_s0"),
    *("mnasnet_small", "fbnetc_100", "lcnet_035", "tinynet_e", "ghostnet_050", "rexnet_100"),
    *("efficientnet_lite0", "tf_efficientnetv2_b0", "repghostnet_050", "starnet_s050"),
    # Convolutional networks after the transformers.
    *(
        "convnext_atto",
        "convnextv2_atto",
        "inception_next_atto",
        "edgenext_xx_small",
        "repvit_m0_9",
    ),
    *("fastvit_t8", "mambaout_femto", "efficientvit_b0"),
    # Transformers.
    *("vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"),
    *("pvt_v2_b0", "pit_ti_224", "xcit_nano_12_p16_224", "levit_128s", "mobilevit_xxs"),
    *("poolformer_s12", "crossvit_tiny_240"),
    # Multilayer perceptrons and recurrence over patches.
    *("mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224"),
)
_TINY = ("mobilenetv3_small_050", "vit_tiny_patch16_224", "starnet_s050")
_SECONDS = 420.0
_RIGHT = 56
_AT_ONCE = 2


def judged(model: str, seconds: float = _SECONDS) -> dict[str, Any]:
    """What `acceptance.timm_net.judge` says of `model`; a crash or a late answer is "failed"."""
    starter = fork_server(["acceptance.timm_net"])
    receiver, sender = starter.Pipe(duplex=False)
    process = starter.Process(target=_judge, args=(model, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return {"outcome": "failed", "detail": f"took more than {seconds:g} s"}
        answer: dict[str, Any] = receiver.recv()
        return answer
    except EOFError:
        process.join(10)
        return {"outcome": "failed", "detail": f"its process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _judge(model: str, sender: Any) -> None:
    from acceptance.timm_net import judge

    judge(model, sender)


def _run(context: Context) -> Iterator[Check]:
    try:
        from acceptance.timm_models import timm
    except ImportError:
        raise NotRun("timm is not installed") from None
    tiny = context.trials < 1
    models = _TINY if tiny else MODELS
    begun = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for model, result in zip(models, threads.map(judged, models), strict=True):
            results[model] = result
            text = (
                f"{result['outcome']} {result.get('error', '')} {result.get('detail', '')}".strip()
            )
            yield figure(
                model, text, ", ".join(f"{k} {v:g} s" for k, v in result.get("seconds", {}).items())
            )
            _write(context, timm.__version__, results)
    counts = Counter(result["outcome"] for result in results.values())
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    yield at_most("wrong", counts["wrong"], 0, told)
    yield at_least("right", counts["right"], len(models) if tiny else _RIGHT, told)
    yield figure("seconds in all", round(time.monotonic() - begun))


def _write(context: Context, version: str, results: dict[str, dict[str, Any]]) -> None:
    """timm.json and timm.md beside the report."""
    about = {"timm": version, "models": results}
    (context.folder / "timm.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"timm {version}, float32 from ONNX, against ONNX Runtime",
        "",
        "| architecture | outcome | max\\|a-b\\| / max\\|b\\| | compile, s | |",
        "|---|---|---|---|---|",
        *(_line(model, result) for model, result in results.items()),
    ]
    (context.folder / "timm.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(model: str, result: dict[str, Any]) -> str:
    error = f"{result['error']:.1e}" if "error" in result else ""
    cells: Sequence[str] = (
        model,
        result["outcome"],
        error,
        str(result.get("seconds", {}).get("compile", "")),
        result.get("detail", "").replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |"


ROW = Row(
    "timm",
    "60 timm architectures from ONNX, float32 against ONNX Runtime: 0 wrong, at least 56 right",
    _run,
)
