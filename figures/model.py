"""Figures of the whole model: the numbers that its block diagrams carry."""

from __future__ import annotations

from figures import style

BATCH, TIME = 4, 256


def shape(tensor) -> str:
    return "(" + ", ".join(f"{size:,}" for size in tensor.shape) + ")"


@style.tikz_values("model-pipeline")
def pipeline() -> dict[str, str]:
    """Shapes at every arrow of the pipeline, read off a pass through its parts.

    The widths are GPT-2 small's, B and T those of chapter 2. Meta tensors carry shapes and no
    numbers, so the pass costs nothing; one block stands for all, which do not change the shape.
    """
    import torch

    from llm_core.config import preset
    from llm_core.model import GPT

    config = preset("gpt2-124m")
    with torch.device("meta"):
        model = GPT(config)
        ids = torch.zeros(BATCH, TIME, dtype=torch.long)
        token, position = model.token_embedding(ids), model.position_embedding(torch.arange(TIME))
        x = token + position
        h = model.final_norm(model.blocks[0](x))
        logits = model.logits(h)
        probabilities = logits.softmax(dim=-1)
        next_ids = probabilities[:, -1].argmax(dim=-1)
    return {
        "layers": str(config.n_layer),
        "shapeIds": shape(ids),
        "shapeToken": shape(token),
        "shapePosition": shape(position),
        "shapeSum": shape(x),
        "shapeBlock": shape(h),
        "shapeLogits": shape(logits),
        "shapeProbabilities": shape(probabilities),
        "shapeNext": shape(next_ids[:, None]),
    }
