"""Results as a person reads them: one Markdown table."""

from collections.abc import Mapping

from experiments.core import measure
from experiments.core.report import interval, markdown, short_commit, speed_up


def report(results: Mapping) -> str:
    """The table of results.json, in Markdown."""
    peak, settings = results["matrix_flops_per_second"], results["settings"]
    head = ["", "target tokens/s", "of the peak", "parameters", "logits, MiB", "temporary, MiB", "seqkd_jax is"]
    rows = []
    for subject in results["subjects"].values():
        for name, system in subject["systems"].items():
            rate = measure.interval([subject["positions"] / seconds for seconds in system["seconds"]])
            share = subject["flops"] / subject["positions"] * rate.median / peak
            mib = lambda size: "–" if size is None else f"{size / 2**20:,.0f}"  # noqa: E731
            rows.append(
                [f"{subject['about']}: {name}", interval(rate._asdict()), f"{share:.0%}"]
                + [f"{system['parameters']:,}", mib(subject["logits_bytes"]), mib(system["temporary_bytes"])]
                + [speed_up(subject["speed_ups"].get(name))]
            )
    torch = (
        f"PyTorch {results['torch']['version']}, {results['torch']['threads']} threads; " if results["torch"] else ""
    )
    lines = [
        "# Training speed",
        f"`{results['command']}`, commit {short_commit(results)}; {', '.join(results['devices'])}, "
        f"{results['host_cpu']}; JAX {results['versions']['jax']}; {torch}measured {peak / 1e9:,.0f} GFLOP/s in "
        f"float32 matrix products; {settings['rounds']} interleaved rounds of {settings['updates']} updates, "
        "medians with 95% intervals by order statistics, ratios paired by round",
    ]
    if settings["smoke"]:
        lines.append("**A smoke run: tiny sizes, the numbers mean nothing.**")
    return "\n\n".join([*lines, "\n".join(markdown(head, rows, left=1))]) + "\n"
