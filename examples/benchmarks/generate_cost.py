"""What `make generate` costs once everything is installed: the numbers of docs/results/generate.json.

    python examples/benchmarks/generate_cost.py --results docs/results/generate.json

Runs the README's command in a process of its own and reads the seconds it prints and the most memory it held.
Nothing else should be busy meanwhile.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from jsonargparse import auto_cli

from igrpo_sdk.errors import ResourceError
from igrpo_sdk.training.evaluation.results import hardware, write_results

FACES = Path(__file__).resolve().parent.parent / "faces"
PROMPT = "Two people talk and laugh in front of a blue wall; the left one nods."


def measure(results: str = "docs/results/generate.json", model: str = "tiny-vace") -> None:
    """Make the video of the README and write what it cost.

    Args:
        results: JSON file for the numbers.
        model: a preset's name or a directory.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [str(FACES / name) for name in ("ann.png", "bob.png")]
        words += ["--prompt", PROMPT, "--seed", "7", "--device", "cpu", "--model", model]
        code = "import sys; from igrpo_sdk.commands.dispatch import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "generate", *words, "--output", f"{folder}/out.mp4"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"made in ([\d.]+) s, after ([\d.]+) s of loading", done.stdout)
    if done.returncode or found is None:
        raise ResourceError(f"generate failed ({done.returncode}): {done.stdout} {done.stderr}")
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # Linux; bytes on macOS
    scale = 2**30 if sys.platform == "darwin" else 2**20
    metrics = {
        "seconds": float(found[1]),
        "load_seconds": float(found[2]),
        "peak_memory_gib": round(kilobytes / scale, 3),
    }
    notes = [f"Model {model}; seconds as the command prints them, memory of its whole process."]
    again = f"python examples/benchmarks/generate_cost.py --model {model}"
    write_results(Path(results), again, hardware(), metrics, notes)
    print(results, metrics)


if __name__ == "__main__":
    auto_cli(measure)
