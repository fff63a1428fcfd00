"""A training step side by side: forward, backward and AdamW, on two threads.

    python bench/train_step.py           # an hour; writes results/train_step.json
    python bench/train_step.py --quick   # minutes, one round of the small shape, prints only

Every measurement is a fresh process that builds a model of one architecture, takes two steps to
warm up and times the next ones. Rounds are interleaved: all contenders in turn, then all again, so
that a slow minute of the machine hits everyone. Beside them stands the limit of the matrix
products: every product of the step, forward and backward, timed alone at exactly its shape, in
memory that is already there. A step can't be faster than their sum with the same libraries.

Where the processor does not gain by bfloat16, as ``runtime.dtype`` finds, what computes in it is
left out: nobody would train in it there.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

from record import in_fresh_process, machine, parser, record_path, write_record
from tqdm.auto import tqdm

from llm_core.config import GPTConfig, preset
from llm_core.runtime import peak_memory, reuse_memory, set_seed, set_threads, timer

N_THREADS = 2
LR = 3e-4
Measured = dict[str, Any]
Step = Callable[[Any, Any], Any]

# name: config, sequences, tokens of each, steps timed in a process
SHAPES = {
    "small": (GPTConfig(4096, 256, n_layer=6, n_head=6, d_model=384), 16, 256, 7),
    "124M": (preset("gpt2-124m"), 4, 256, 5),
    "124M, long": (preset("gpt2-124m"), 2, 1024, 2),
}


# --- contenders: (config) -> a function that takes one step on (ids, targets) ---------------------


def llm_core(config: GPTConfig) -> Step:
    """Weights in bfloat16, masters in float32, the head's loss in chunks, memory reused."""
    return _ours(config, "bfloat16", autocast=False)


def llm_core_autocast(config: GPTConfig) -> Step:
    """The same model with weights in float32, under autocast."""
    return _ours(config, "float32", autocast=True)


def llm_core_float32(config: GPTConfig) -> Step:
    """The same model with all in float32."""
    return _ours(config, "float32", autocast=False)


def _ours(config: GPTConfig, dtype: str, autocast: bool) -> Step:
    import torch

    from llm_core.loss import cross_entropy
    from llm_core.model import GPT
    from llm_core.optim import AdamW

    reuse_memory()
    model = GPT(config).to(getattr(torch, dtype))
    optimizer = AdamW(model.parameters(), lr=LR)

    def step(ids: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = cross_entropy(model.hidden(ids), model.output_weight, targets)
        loss.backward()
        optimizer.step()
        return loss

    return step


def _peer(model: Any, loss_of: Callable[[Any, Any], Any], bfloat16: bool) -> Step:
    """A peer as it ships, or under autocast with torch's fused AdamW, which is faster."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=bfloat16 or None)

    def step(ids: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = loss_of(ids, targets)
        loss.backward()
        optimizer.step()
        return loss

    return step


def transformers(config: GPTConfig, bfloat16: bool = False) -> Step:
    """GPT2LMHeadModel, which shifts the targets itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.d_model}
    of_gpt2 = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        activation_function={"gelu": "gelu", "gelu_tanh": "gelu_new"}[config.mlp],
        bos_token_id=0,
        eos_token_id=0,
        **size,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    )
    model = GPT2LMHeadModel(of_gpt2).train()
    return _peer(model, lambda ids, targets: model(ids, labels=ids).loss, bfloat16)


def litgpt(config: GPTConfig, bfloat16: bool = False) -> Step:
    """litgpt's GPT with its chunked loss; it has rotary positions in place of learned ones."""
    import litgpt as peer
    import torch
    from litgpt.utils import chunked_cross_entropy

    of_litgpt = peer.Config(
        block_size=config.context_length,
        vocab_size=config.vocab_size,
        padded_vocab_size=config.vocab_size,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.d_model,
        intermediate_size=config.d_ff,
        rotary_percentage=1.0,
        norm_class_name="LayerNorm",
        mlp_class_name="GptNeoxMLP",
        gelu_approximate="tanh" if config.mlp == "gelu_tanh" else "none",
        parallel_residual=False,
        bias=True,
    )
    model = peer.GPT(of_litgpt)
    torch.nn.init.normal_(model.transformer.wte.weight, std=0.02)
    model.lm_head.weight = model.transformer.wte.weight  # tied, as the others are
    return _peer(model, lambda ids, targets: chunked_cross_entropy(model(ids), targets), bfloat16)


CONTENDERS: dict[str, Callable[[GPTConfig], Step]] = {
    "llm_core": llm_core,
    "llm_core, autocast": llm_core_autocast,
    "llm_core, float32": llm_core_float32,
    "transformers": transformers,
    "transformers, bf16": lambda config: transformers(config, bfloat16=True),
    "litgpt": litgpt,
    "litgpt, bf16": lambda config: litgpt(config, bfloat16=True),
}
AS_SHIPPED = ("transformers", "litgpt")
IN_BF16 = ("transformers, bf16", "litgpt, bf16")
IN_FLOAT32 = ("llm_core, float32", *AS_SHIPPED)


def measure_step(shape: str, contender: str, n_steps: int) -> Measured:
    """Two steps to warm up, then the seconds of each."""
    import torch

    config, n_rows, n_tokens, _ = SHAPES[shape]
    step = CONTENDERS[contender](config)
    ids = torch.randint(config.vocab_size, (n_rows, n_tokens + 1))
    batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    losses, seconds = [], []
    for number in range(2 + n_steps):
        with timer() as clock:
            losses.append(step(*batch).item())
        if number >= 2:
            seconds.append(clock.seconds)
    if not losses[-1] < losses[0]:
        raise SystemExit(f"{contender} does not learn: {losses}")
    return {"seconds": statistics.median(seconds), "peak_memory": peak_memory()}


# --- the limit ------------------------------------------------------------------------------------


def products(config: GPTConfig, n_tokens: int) -> dict[tuple[int, int, int], int]:
    """(tokens, inputs, outputs) of every matrix product with weights -> how often it comes."""
    d, c = config.d_model, config.head_dim
    n_up = 2 if config.mlp == "swiglu" else 1
    layer = [
        (d, (config.n_head + 2 * config.n_kv_head) * c),
        (config.n_head * c, d),
        (d, n_up * config.d_ff),
        (config.d_ff, d),
    ]
    counts: dict[tuple[int, int, int], int] = {(n_tokens, d, config.vocab_size): 1}
    for inputs, outputs in layer:
        shape = (n_tokens, inputs, outputs)
        counts[shape] = counts.get(shape, 0) + config.n_layer
    return counts


def median_seconds(function: Callable[[], Any], repeats: int = 7) -> float:
    """Of ``repeats`` calls, after two to warm up."""
    seconds = []
    for _ in range(2 + repeats):
        with timer() as clock:
            function()
        seconds.append(clock.seconds)
    return statistics.median(seconds[2:])


def measure_limit(shape: str, dtype_name: str) -> Measured:
    """Seconds of all products of a step, each timed alone; of the scores, the causal half."""
    import torch

    config, n_rows, n_tokens, _ = SHAPES[shape]
    dtype = getattr(torch, dtype_name)
    total, rates = 0.0, []
    for (m, k, n), count in products(config, n_rows * n_tokens).items():
        x, w, g = (torch.randn(s).to(dtype) for s in ((m, k), (n, k), (m, n)))
        gx, gw = torch.empty_like(x), torch.empty_like(w)
        times = (
            median_seconds(lambda x=x, w=w, g=g: torch.mm(x, w.T, out=g)),
            median_seconds(lambda w=w, g=g, gx=gx: torch.mm(g, w, out=gx)),
            median_seconds(lambda x=x, g=g, gw=gw: torch.mm(g.T, x, out=gw)),
        )
        total += count * sum(times)
        rates.append({"m": m, "k": k, "n": n, "gflops": [2e-9 * m * k * n / t for t in times]})
    heads, c = n_rows * config.n_head, config.head_dim
    q, k_t = (torch.randn(s).to(dtype) for s in ((heads, n_tokens, c), (heads, c, n_tokens)))
    scores, y = torch.bmm(q, k_t), torch.empty_like(q)
    square = median_seconds(lambda: torch.bmm(q, k_t, out=scores))  # scores, and their gradient
    mixed = median_seconds(lambda: torch.bmm(scores, q, out=y))  # values, gradients of q, k, v
    total += config.n_layer * (2 * square + 4 * mixed) / 2
    from llm_core.model import flops_per_token

    flops = n_rows * n_tokens * flops_per_token(config, n_tokens, training=True)
    return {"seconds": total, "flops": flops, "gflops": flops / total / 1e9, "products": rates}


# --- running --------------------------------------------------------------------------------------


def do(job: dict[str, Any]) -> Measured:
    """One job, in this process."""
    set_threads(N_THREADS)
    set_seed(0)
    if job["task"] == "limit":
        return measure_limit(job["shape"], job["dtype"])
    return measure_step(job["shape"], job["contender"], job["n_steps"])


def dtypes_that_pay() -> list[str]:
    """What to train in here: float32, and bfloat16 first where the processor gains by it."""
    import torch

    from llm_core.runtime import dtype

    pays = dtype(torch.device("cpu")) == torch.bfloat16
    return ["bfloat16", "float32"] if pays else ["float32"]


def jobs(quick: bool, shapes: list[str], dtypes: list[str]) -> list[dict[str, Any]]:
    """What is measured in each round."""
    names = CONTENDERS if "bfloat16" in dtypes else IN_FLOAT32
    todo: list[dict[str, Any]] = []
    for shape in shapes:
        n_steps = 3 if quick else SHAPES[shape][3]
        if shape != "124M, long":  # that is there for the memory
            limit = {"task": "limit", "shape": shape}
            todo += [{**limit, "dtype": name} for name in dtypes]
        step = {"task": "step", "shape": shape, "n_steps": n_steps}
        todo += [{**step, "contender": name} for name in names]
    return todo


def summary(job: dict[str, Any], runs: list[Measured]) -> dict[str, Any]:
    """The row of one job: all times, their median, speed, the most memory."""
    seconds = [run["seconds"] for run in runs]
    row = {key: value for key, value in job.items() if key != "n_steps"}
    row |= {"seconds": seconds, "median_seconds": statistics.median(seconds)}
    if job["task"] == "limit":
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        return row | {key: middle[key] for key in ("flops", "gflops", "products")}
    _, n_rows, n_tokens, _ = SHAPES[job["shape"]]
    row["tokens_per_second"] = n_rows * n_tokens / row["median_seconds"]
    row["peak_memory_megabytes"] = max(run["peak_memory"] for run in runs) / 10**6
    return row


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """To each step its speed over that of peers, its memory over theirs, its share of the limit."""
    for row in rows:
        if row["task"] == "limit":
            continue
        same = [r for r in rows if r["shape"] == row["shape"]]
        limits = {r["dtype"]: r["median_seconds"] for r in same if r["task"] == "limit"}
        steps = {r["contender"]: r for r in same if r["task"] == "step"}
        mine = row["median_seconds"]
        in_bf16 = [steps[name] for name in IN_BF16 if name in steps]
        if in_bf16:
            fastest = min(peer["median_seconds"] for peer in in_bf16)
            row["times_best_peer_in_bf16"] = fastest / mine
        shipped = {name: steps[name] for name in AS_SHIPPED}
        for name, peer in shipped.items():
            row[f"times_{name}_as_shipped"] = peer["median_seconds"] / mine
        least = min(peer["peak_memory_megabytes"] for peer in (*in_bf16, *shipped.values()))
        row["memory_over_best_peer"] = row["peak_memory_megabytes"] / least
        for dtype, seconds in limits.items():
            row[f"share_of_{dtype}_limit"] = seconds / mine


def measure_all(todo: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    """All rounds of all jobs."""
    runs: list[list[Measured]] = [[] for _ in todo]
    with tqdm(total=rounds * len(todo)) as bar:
        for _ in range(rounds):
            for job, done in zip(todo, runs, strict=True):
                bar.set_description(f"{job['shape']} {job.get('contender', 'limit')}")
                done.append(in_fresh_process(job))
                bar.update()
    rows = [summary(job, done) for job, done in zip(todo, runs, strict=True)]
    add_ratios(rows)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table on the screen."""
    head = ("shape", "contender", "median s", "tokens/s", "x bf16", "x hf", "x lit", "limit", "MB")
    print("{:11} {:19} {:>8} {:>8} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6}".format(*head, "x mem"))
    for row in rows:
        start = f"{row['shape']:11} {row.get('contender') or 'limit, ' + row['dtype']:19} "
        start += f"{row['median_seconds']:8.3f} "
        if row["task"] == "limit":
            print(start + f"{row['gflops']:8.0f} GFLOP/s")
            continue
        limits = (row.get(f"share_of_{name}_limit") for name in ("bfloat16", "float32"))
        numbers = (
            row.get("times_best_peer_in_bf16", float("nan")),
            *(row[f"times_{name}_as_shipped"] for name in AS_SHIPPED),
            next((share for share in limits if share), float("nan")),
            row["peak_memory_megabytes"],
            row["memory_over_best_peer"],
        )
        print(
            start + f"{row['tokens_per_second']:8.0f}",
            "{:6.2f} {:6.2f} {:6.2f} {:6.2f} {:6.0f} {:6.2f}".format(*numbers),
        )


def main() -> None:
    """Read the command line, measure, print, write."""
    flags = parser(__doc__, "train_step", "small shape", rounds=5)
    flags.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    arguments = flags.parse_args()
    if arguments.job:
        print(json.dumps(do(json.loads(arguments.job))))
        return
    here = machine()
    chosen = ["small"] if arguments.quick else arguments.shapes
    dtypes = dtypes_that_pay()
    todo = jobs(arguments.quick, chosen, dtypes)
    rows = measure_all(todo, 1 if arguments.quick else arguments.rounds)
    show(rows)
    shapes = {
        name: {"config": config.to_dict(), "batch_size": n_rows, "context_length": n_tokens}
        for name, (config, n_rows, n_tokens, _) in SHAPES.items()
        if name in chosen
    }
    content = {"threads": N_THREADS, "dtypes": dtypes, "shapes": shapes, "rows": rows}
    packages = ("torch", "transformers", "litgpt")
    write_record(record_path(arguments, "train_step"), here, packages, **content)


if __name__ == "__main__":
    main()
