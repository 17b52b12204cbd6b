"""Broken files by the thousand: every one is pruned or refused in one line, within the limits below.

    python benchmarks/fuzz.py [--inputs N] [--first NUMBER] [--workers N] [--out FILE]
    python benchmarks/fuzz.py --replay NUMBER
    python benchmarks/fuzz.py --markdown

An input is made from its number alone (`tests/fuzzing`). Worker processes run the tool on it under limits of memory and
processor time, so that a crash or a hang of onnx or onnxruntime ends one worker, and is counted. Every other input
goes through the whole pipeline, onnxruntime included; the others through the stages up to the rewritten model. The exit
status is 1 when any input fails.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))  # the mutations are shared with the tests
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"  # threads' stacks count against the limit of memory

from li2016 import described, markdown_table, print_table, write  # noqa: E402
from scaling import forget_peak, memory  # noqa: E402

from tests.fuzzing.outcome import FAILED, Outcome, try_files  # noqa: E402
from tests.fuzzing.specimen import SEEDS, read_seed, specimen  # noqa: E402

RESULTS = REPO / "benchmarks" / "results" / "fuzz.json"
ADDRESS_SPACE = 4 << 30  # bytes
PROCESSOR, WALL = 10, 180  # seconds: what an input may use, and how long a worker is waited for
WHOLE = 2  # one input in so many goes through onnxruntime, too
ABSENT = "absent"


# --- one input, in a worker ------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer numbers on standard input with results on standard output; what libraries print goes nowhere."""
    answers = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        print(json.dumps(attempt(int(line))), file=answers, flush=True)


def attempt(number: int) -> dict[str, Any]:
    """Try one input; its outcome, seconds of processor time, and bytes above what the process held before."""
    made = specimen(number)
    if made is None:
        return {"number": number, "kind": ABSENT}
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + PROCESSOR, resource.RLIM_INFINITY))
    forget_peak()
    before = memory("VmRSS")
    outcome = try_files(made.files, verify=number % WHOLE == 0)
    spent = {"seconds": round(time.process_time() - used, 3), "bytes": max(0, memory("VmHWM") - before)}
    return {"number": number, "seed": made.seed, "changes": made.changes, **spent, **asdict(outcome)}


# --- workers ---------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A process that tries inputs; it is started again when one of them ends it."""

    process: subprocess.Popen[str] | None = None

    def attempt(self, number: int) -> dict[str, Any]:
        """Try one input."""
        if self.process is None:
            command = [sys.executable, __file__, "--serve"]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], WALL)
        line = self.process.stdout.readline() if ready else ""
        return json.loads(line) if line else self.ended(number)

    def ended(self, number: int) -> dict[str, Any]:
        """The result of an input that ended its worker, or on which it was ended."""
        assert self.process is not None
        hung = self.process.poll() is None
        time.sleep(0.1)
        hung = hung and self.process.poll() is None
        self.stop()
        code = self.process.returncode if self.process else 0
        self.process = None
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        detail = "time-out" if hung or name == "SIGXCPU" else f"crash: {name}"
        made = specimen(number)
        assert made is not None
        return {"number": number, "seed": made.seed, "changes": made.changes, **asdict(Outcome(FAILED, detail))}

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def attempts(numbers: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    """Try all inputs, in order of their numbers within each worker."""
    shares = [numbers[i::workers] for i in range(workers)]
    progress = Counter[str]()

    def run(share: Sequence[int]) -> list[dict[str, Any]]:
        worker, found = Worker(), []
        for number in share:
            found.append(worker.attempt(number))
            progress[found[-1]["kind"]] += 1
            if found[-1]["kind"] == FAILED:
                print(json.dumps({k: v for k, v in found[-1].items() if k != "text"}), flush=True)
            if progress.total() % 500 == 0:
                print(f"{progress.total():,} inputs: {dict(progress)}", file=sys.stderr, flush=True)
        worker.stop()
        return found

    with ThreadPoolExecutor(workers) as pool:
        for results in pool.map(run, shares):
            yield from results


# --- the record ------------------------------------------------------------------------------------------------------


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts by seed model, by mutation and by refusal; the failures, the slowest and the largest."""
    tried = [r for r in results if r["kind"] != ABSENT]
    return {
        "inputs": len(tried),
        "outcomes": dict(Counter(r["kind"] for r in tried)),
        "refusals": dict(Counter(r["detail"] for r in tried if r["kind"] == "refused").most_common()),
        "models": tally(tried, lambda r: [r["seed"]]),
        "mutations": tally(tried, lambda r: r["changes"]),
        "failures": [{k: v for k, v in r.items() if k != "text"} for r in tried if r["kind"] == FAILED],
        "unverified": [r["number"] for r in tried if r["detail"] == "VerificationError"],
        "slowest": extremes(tried, "seconds"),
        "largest": extremes(tried, "bytes"),
    }


def tally(results: Sequence[Mapping[str, Any]], keys: Any) -> dict[str, dict[str, int]]:
    """Outcomes counted under each key of a result."""
    table: dict[str, Counter[str]] = {}
    for result in results:
        for key in keys(result):
            table.setdefault(key, Counter())[result["kind"]] += 1
    return {key: dict(table[key]) for key in sorted(table)}


def extremes(results: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """The five results that used most."""
    most = sorted((r for r in results if key in r), key=lambda r: -r[key])[:5]
    return [{k: r[k] for k in ("number", "seed", "changes", "kind", "detail", key)} for r in most]


def table(results: Mapping[str, Any]) -> list[list[str]]:
    """Rows for printing: mutations and their outcomes."""
    kinds = ("pruned", "refused", FAILED)
    rows = [["mutation", *kinds]]
    for name, found in results["mutations"].items():
        rows.append([name.replace("_", " "), *(f"{found.get(kind, 0):,}" for kind in kinds)])
    return rows


def replay(number: int) -> int:
    """Try one input in this process, and say what it was and what came of it."""
    made = specimen(number)
    if made is None:
        print("its seed model is absent")
        return 2
    folder = Path(f"fuzz-{number}")
    folder.mkdir(exist_ok=True)
    for name, content in made.files.items():
        (folder / name).write_bytes(content)
    print(f"{made.seed}: {', '.join(made.changes)}; written to {folder}/", flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    outcome = try_files(made.files, verify=number % WHOLE == 0)
    print(f"{outcome.kind} {outcome.detail} {outcome.where}\n{outcome.text}")
    return int(outcome.kind == FAILED)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_500, help="how many inputs")
    parser.add_argument("--first", type=int, default=0, help="the first input's number")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--replay", type=int, help="try this one input alone, and keep its files")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the record goes, as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the record in --out and run nothing")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run, print, write; 1 when an input failed."""
    options = arguments()
    if options.serve:
        serve()
        return 0
    if options.replay is not None:
        return replay(options.replay)
    if options.markdown:
        print(markdown_table(table(json.loads(options.out.read_text(encoding="utf-8")))))
        return 0
    started, numbers = time.perf_counter(), range(options.first, options.first + options.inputs)
    results = summarise(list(attempts(numbers, options.workers)))
    command = f"python benchmarks/fuzz.py --inputs {options.inputs} --first {options.first}"
    limits = {"address space": ADDRESS_SPACE, "processor seconds": PROCESSOR, "wall seconds": WALL}
    absent = [name for name in SEEDS if read_seed(name) is None]
    facts = {"command": command, "environment": described(), "limits": limits, "absent": absent}
    write(options.out, {**facts, "seconds": round(time.perf_counter() - started), **results})
    print_table(table(results), f"{results['inputs']:,} broken files")
    print(f"failures: {len(results['failures'])}")
    return 1 if results["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
