"""Generation on a CPU, side by side: GPT-2 124M with random weights, greedy, on two threads.

    python bench/generate.py           # half an hour or so; writes results/generate.json
    python bench/generate.py --quick   # some minutes, one round, prints only

Every measurement is a fresh process that makes the model, warms up on a few tokens (which loads or
compiles what there is to compile) and then continues the prompts once; the clock runs over reading
the prompts, too. Rounds are interleaved: all contenders in turn, then all again, so that a slow
minute of the machine hits everyone. Beside them stands the floor: how long it takes to read as many
bytes as the weights have, once for each step. Peers: transformers, litgpt (which has rotary
positions in place of learned ones, and is the same otherwise) and llama.cpp.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import in_fresh_process, machine, parser, record_path, write_record
from tqdm.auto import tqdm

from llm_core.runtime import peak_memory, set_threads, timer

N_THREADS = 2
N_WARM = 4  # tokens
Measured = dict[str, Any]
Continue = Callable[[list[list[int]], int], list[list[int]]]  # (prompts, new tokens) -> new ids


# --- the model and the prompts --------------------------------------------------------------------


def make_model(dtype: str) -> Any:
    """GPT-2 124M with random weights, biases included, the same in every process."""
    import torch

    from llm_core.config import preset
    from llm_core.model import GPT

    torch.manual_seed(0)
    model = GPT(preset("gpt2-124m")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.02)
    return model.to(getattr(torch, dtype))


def make_prompts(batch: int, length: int) -> list[list[int]]:
    """Random ids, the same in every process."""
    import torch

    generator = torch.Generator().manual_seed(1)
    rows: list[list[int]] = torch.randint(50257, (batch, length), generator=generator).tolist()
    return rows


# --- contenders: each returns a function that continues prompts -----------------------------------


def with_llm_core(job: dict[str, Any]) -> Continue:
    from llm_core.generate import generate

    model = make_model(job["dtype"])
    return lambda prompts, new: generate(model, prompts, new, temperature=0)


def with_llm_core_in_pytorch(job: dict[str, Any]) -> Continue:
    """The model and its cache alone, as ``generate`` does where the fused step does not apply."""
    import llm_core.generate

    llm_core.generate.most_rows = lambda dtype: 0
    return with_llm_core(job)


def with_llm_core_without_a_cache(job: dict[str, Any]) -> Continue:
    """The whole text through the model for every new token, as chapter 4's first loop does."""
    import torch

    model = make_model(job["dtype"])

    @torch.inference_mode()
    def run(prompts: list[list[int]], new: int) -> list[list[int]]:
        rows = [list(prompt) for prompt in prompts]
        for _ in range(new):
            x = model.hidden(torch.tensor(rows))[:, -1]
            for row, best in zip(rows, model.logits(x).argmax(dim=-1).tolist(), strict=True):
                row.append(best)
        return [row[job["prompt"] :] for row in rows]

    return run


def with_transformers(job: dict[str, Any]) -> Continue:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    ours = make_model(job["dtype"])
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None)).to(
        ours.output_weight.dtype
    )
    model.load_state_dict(transformers_names(ours.state_dict()))
    model.eval()

    def run(prompts: list[list[int]], new: int) -> list[list[int]]:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            done = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False
            )
        return [row[len(prompt) :] for row, prompt in zip(done.tolist(), prompts, strict=True)]

    return run


def transformers_names(ours: dict[str, Any]) -> dict[str, Any]:
    """Our weights under transformers' names; its matrices lie the other way around."""
    names = {
        "token_embedding": "wte",
        "position_embedding": "wpe",
        "final_norm": "ln_f",
        "blocks.": "h.",
        "attention_norm": "ln_1",
        "mlp_norm": "ln_2",
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
    }
    theirs = {"lm_head.weight": ours["token_embedding.weight"]}
    for name, tensor in ours.items():
        for mine, other in names.items():
            name = name.replace(mine, other)
        turned = name.startswith("h.") and tensor.dim() == 2
        theirs[f"transformer.{name}"] = tensor.T if turned else tensor
    return theirs


def with_litgpt(job: dict[str, Any]) -> Continue:
    import torch
    from litgpt import GPT, Config
    from litgpt.generate.base import batched_generate_fn, generate

    torch.manual_seed(0)
    config = Config(
        block_size=1024, vocab_size=50257, padded_vocab_size=50257, n_layer=12, n_head=12,
        n_embd=768, rotary_percentage=1.0, parallel_residual=False, bias=True, lm_head_bias=False,
        norm_class_name="LayerNorm", mlp_class_name="GptNeoxMLP", intermediate_size=3072,
        gelu_approximate="tanh",
    )  # fmt: skip
    model = GPT(config).eval().to(getattr(torch, job["dtype"]))

    def run(prompts: list[list[int]], new: int) -> list[list[int]]:
        ids, most = torch.tensor(prompts), len(prompts[0]) + new
        model.clear_kv_cache()
        model.max_seq_length = most
        with torch.inference_mode():
            model.set_kv_cache(len(prompts), most, dtype=model.lm_head.weight.dtype)
            if len(prompts) == 1:
                return [generate(model, ids[0], most, temperature=0.0, include_prompt=False)]
            steps = batched_generate_fn(
                model, ids, most, sample_args={"temperature": 0.0},
                include_prompt=False, include_eos=True,
            )  # fmt: skip
            return [[int(token) for token in row] for row in zip(*steps, strict=True)]

    return run


def write_gguf(path: Path, model: Any) -> None:
    """The model as llama.cpp reads it; matrices in the model's dtype, all else float32."""
    import gguf
    import torch

    kinds = gguf.GGMLQuantizationType
    kind = kinds.BF16 if model.output_weight.dtype == torch.bfloat16 else kinds.F32
    names = {"token_embedding": "token_embd", "position_embedding": "position_embd"}
    names |= {"final_norm": "output_norm", "blocks.": "blk.", "attention_norm": "attn_norm"}
    names |= {"mlp_norm": "ffn_norm", "attention.qkv": "attn_qkv", "mlp.up": "ffn_up"}
    names |= {"attention.out": "attn_output", "mlp.down": "ffn_down"}
    writer = gguf.GGUFWriter(path, "gpt2")
    config = model.config
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.norm.eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    for name, tensor in model.state_dict().items():
        for mine, other in names.items():
            name = name.replace(mine, other)
        values = tensor.float().numpy()
        matrix = tensor.dim() == 2 and "position" not in name
        stored = gguf.quants.quantize(values, kind) if matrix else values
        writer.add_tensor(name, stored, raw_dtype=kind if matrix else kinds.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def with_llama_cpp(job: dict[str, Any]) -> Continue:
    """One sequence at a time: its Python binding has no call for a batch of several."""
    import numpy as np
    from llama_cpp import Llama

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        write_gguf(path, make_model(job["dtype"]))
        llama = Llama(
            str(path), n_ctx=job["prompt"] + job["new"], n_threads=N_THREADS,
            n_threads_batch=N_THREADS, use_mmap=False, verbose=False,
        )  # fmt: skip

    def run(prompts: list[list[int]], new: int) -> list[list[int]]:
        llama.reset()
        ids: list[int] = []
        llama.eval(prompts[0])
        for number in range(new):
            if number:
                llama.eval(ids[-1:])
            logits = np.ctypeslib.as_array(llama._ctx.get_logits_ith(-1), (llama.n_vocab(),))
            ids.append(int(logits.argmax()))
        return [ids]

    return run


def with_reading_alone(job: dict[str, Any]) -> Continue:
    """No model: read as many bytes as its weights have, once for every step."""
    import torch

    model = make_model(job["dtype"])
    n_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    weights = torch.ones(n_bytes // 4)
    return lambda prompts, new: [[int(weights.sum() > 0) for _ in range(new)]]


CONTENDERS: dict[str, Callable[[dict[str, Any]], Continue]] = {
    "llm_core": with_llm_core,
    "llm_core in PyTorch": with_llm_core_in_pytorch,
    "llm_core without a cache": with_llm_core_without_a_cache,
    "transformers": with_transformers,
    "litgpt": with_litgpt,
    "llama.cpp": with_llama_cpp,
    "reading the weights": with_reading_alone,
}
ONE_TEXT_ONLY = ("llm_core without a cache", "llama.cpp", "reading the weights")
PYTORCH_PEERS = ("transformers", "litgpt")
SAME_WEIGHTS = ("llm_core", "llm_core in PyTorch", "transformers", "llama.cpp")


# --- running --------------------------------------------------------------------------------------


def do(job: dict[str, Any]) -> Measured:
    """One job, in this process."""
    set_threads(N_THREADS)
    prompts = make_prompts(job["batch"], job["prompt"])
    run = CONTENDERS[job["contender"]](job)
    run(prompts, N_WARM)
    with timer() as clock:
        rows = run(prompts, job["new"])
    ids = [[int(i) for i in row] for row in rows]
    assert all(len(row) == job["new"] for row in ids), "not as many ids as asked for"
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    return {"seconds": clock.seconds, "digest": digest, "peak_memory": peak_memory()}


def jobs(prompt: int, new: int, only: list[str]) -> list[dict[str, Any]]:
    """What is measured in each round."""
    todo = []
    for dtype in ("float32", "bfloat16"):
        for batch in (1, 8):
            for name in only:
                if batch > 1 and name in ONE_TEXT_ONLY:
                    continue
                job = {"contender": name, "dtype": dtype, "batch": batch}
                todo.append({**job, "prompt": prompt, "new": new})
    return todo


def summary(job: dict[str, Any], runs: list[Measured]) -> dict[str, Any]:
    """The row of one contender: all times, their median and spread, speed, the most memory."""
    seconds = [run["seconds"] for run in runs]
    median = statistics.median(seconds)
    return {
        **job,
        "seconds": seconds,
        "median_seconds": median,
        "spread": (max(seconds) - min(seconds)) / median,
        "tokens_per_second": job["batch"] * job["new"] / median,
        "peak_memory_megabytes": max(run["peak_memory"] for run in runs) / 1e6,
    }


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """How many times as fast as the best PyTorch peer, llama.cpp, the floor."""
    for row in rows:
        same = [one for one in rows if one["dtype"] == row["dtype"]]
        batch = [one for one in same if one["batch"] == row["batch"]]
        peers = [one["tokens_per_second"] for one in batch if one["contender"] in PYTORCH_PEERS]
        if peers:
            row["times_best_pytorch_peer"] = row["tokens_per_second"] / max(peers)
        for name, key in (("llama.cpp", "times_llama_cpp"), ("reading the weights", "of_floor")):
            for one in same:
                if one["contender"] == name and (key == "of_floor" or row["batch"] == 1):
                    row[key] = one["median_seconds"] / row["median_seconds"]


def check_ids(todo: list[dict[str, Any]], runs: list[list[Measured]]) -> None:
    """In float32, contenders with the same weights must give the same ids."""
    digests: dict[int, set[str]] = {}
    for job, done in zip(todo, runs, strict=True):
        if job["dtype"] == "float32" and job["contender"] in SAME_WEIGHTS:
            digests.setdefault(job["batch"], set()).update(run["digest"] for run in done)
    if any(len(found) > 1 for found in digests.values()):
        raise SystemExit("the contenders' ids differ; no speed is worth comparing")


def measure_all(todo: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    """All rounds of all jobs."""
    runs: list[list[Measured]] = [[] for _ in todo]
    with tqdm(total=rounds * len(todo)) as bar:
        for _ in range(rounds):
            for job, done in zip(todo, runs, strict=True):
                bar.set_description(f"{job['contender']} {job['dtype']} x {job['batch']}")
                done.append(in_fresh_process(job))
                bar.update()
    check_ids(todo, runs)
    rows = [summary(job, done) for job, done in zip(todo, runs, strict=True)]
    add_ratios(rows)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table on the screen."""
    head = ("dtype", "batch", "contender", "tokens/s", "spread", "x peer", "x llama", "of floor")
    print("{:9} {:>5} {:20} {:>9} {:>7} {:>7} {:>8} {:>8}".format(*head))
    keys = ("times_best_pytorch_peer", "times_llama_cpp", "of_floor")
    for row in rows:
        ratios = [f"{row[key]:.2f}" if key in row else "" for key in keys]
        print(
            f"{row['dtype']:9} {row['batch']:>5} {row['contender']:20} "
            f"{row['tokens_per_second']:9.1f} {row['spread']:7.0%} "
            "{:>7} {:>8} {:>8}".format(*ratios)
        )


def main() -> None:
    """Read the command line, measure, print, write."""
    flags = parser(__doc__, "generate", "32 tokens", rounds=5)
    flags.add_argument("--prompt", type=int, default=32, help="length of the prompts")
    flags.add_argument("--new", type=int, default=128, help="tokens to generate")
    flags.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = flags.parse_args()
    if arguments.job:
        print(json.dumps(do(json.loads(arguments.job))))
        return
    here = machine()
    new, rounds = (32, 1) if arguments.quick else (arguments.new, arguments.rounds)
    rows = measure_all(jobs(arguments.prompt, new, arguments.only), rounds)
    show(rows)
    out = record_path(arguments, "generate")
    packages = ("torch", "numba", "transformers", "litgpt", "llama-cpp-python", "gguf")
    write_record(out, here, packages, threads=N_THREADS, model="gpt2-124m", rows=rows)


if __name__ == "__main__":
    main()
