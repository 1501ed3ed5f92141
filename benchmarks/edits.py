"""Edits against their rendered truth.

    python -m benchmarks.edits bundled --json scores.json --sheet sheet.png
    python -m benchmarks.edits scenes --clips 12 --frames 16 --kinds colour,background,style

`bundled` edits the bundled clips with default settings, nothing cached; `scenes` random test clips. Methods and
settings are compared by `python -m benchmarks.quality`.
"""

from __future__ import annotations

import argparse
from typing import Any

from PIL import Image

from adaflow_core.model.backbone import Backbone
from benchmarks.output import cell, say, sheet_rows, table, write_json, write_sheet
from benchmarks.run import (
    Run,
    add_model,
    add_settings,
    clip_size,
    describe_machine,
    fresh_engine,
    load,
    make_configs,
    run,
)
from benchmarks.scores import autoencode, check_criteria, judge_clip, score_references, score_regions, summarise
from benchmarks.truth import EDITS, Pair, draw_bundled, load_bundled, random_pair, random_rows
from scenes.training.classifier import Judge, load_judge

HEAD = [
    "", "clips", "PSNR in", "copy", "autoenc", "flat", "affine", "SSIM in", "copy", "autoenc", "flat",
    "PSNR out", "autoenc", "target", "others", "K", "plan s", "edit s",
]  # fmt: skip


def measure(backbone: Backbone, judge: Judge, pair: Pair, done: Run) -> dict[str, Any]:
    """All scores of one edit."""
    source = done.plan.video.frames  # as decoded: what a copy would show
    return {
        "name": pair.name,
        "kind": pair.kind,
        "source_prompt": pair.source_prompt,
        "prompt": pair.prompt,
        "frames": len(pair.times),
        "region": float(pair.region.mean()),
        "edit": score_regions(done.result.frames, pair),
        **score_references(backbone, pair, source),
        "judge": judge_clip(judge, done.result.frames, pair),
        "judge_on_truth": judge_clip(judge, pair.truth, pair),
        "judge_on_autoencoded": judge_clip(judge, autoencode(backbone, pair.truth), pair),
        "keyframes": len(done.plan.segments),
        "kept_ratio": done.plan.kept_ratio,
        "plan_seconds": done.plan_seconds,
        "edit_seconds": done.edit_seconds,
        "stages": done.result.report["seconds"],
        "settings": done.result.report["settings"],
        "warnings": [*done.plan.notes, *done.result.warnings],
    }


def clip_line(row: dict[str, Any]) -> list[str]:
    judge = row["judge"]
    return [
        row["name"],
        "1",
        *(cell(row[who]["psnr_inside"]) for who in ("edit", "copy", "autoencoded", "flat", "affine")),
        *(cell(row[who]["ssim_inside"], ".2f") for who in ("edit", "copy", "autoencoded", "flat")),
        *(cell(row[who]["psnr_outside"]) for who in ("edit", "autoencoded")),
        *(f"{'yes' if judge[n] else 'NO'} {judge[n + '_frames']:.0%}" for n in ("target", "others")),
        str(row["keyframes"]),
        cell(row["plan_seconds"]),
        cell(row["edit_seconds"]),
    ]


def kind_line(kind: str, rows: list[dict[str, Any]], summary: dict[str, Any]) -> list[str]:
    def mean(name: str) -> float:
        return sum(row[name] for row in rows) / len(rows)

    return [
        kind,
        str(len(rows)),
        *(cell(summary[who]["psnr_inside"]["mean"]) for who in ("edit", "copy", "autoencoded", "flat", "affine")),
        *(cell(summary[who]["ssim_inside"]["mean"], ".2f") for who in ("edit", "copy", "autoencoded", "flat")),
        *(cell(summary[who]["psnr_outside"]["mean"]) for who in ("edit", "autoencoded")),
        *(f"{summary['judge'][name]['mean']:.0%}" for name in ("target", "others")),
        cell(mean("keyframes")),
        cell(mean("plan_seconds")),
        cell(mean("edit_seconds")),
    ]


def report_by_kind(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Print means by kind and a line for every bar; return both as data."""
    kinds = [kind for kind in EDITS if any(row["kind"] == kind for row in rows)]
    summaries = {kind: summarise([row for row in rows if row["kind"] == kind]) for kind in kinds}
    lines = [kind_line(k, [row for row in rows if row["kind"] == k], summaries[k]) for k in kinds]
    print(table(HEAD, lines))
    data: dict[str, Any] = {}
    for kind in kinds:
        found = check_criteria(summaries[kind])
        gain = summaries[kind]["gain_over_copy"]
        ceiling = summaries[kind]["judge_on_truth"]
        print(
            f"\n{kind}: gain over the copy {cell(gain['mean'], '+.1f')} dB "
            f"(95 %: {cell(gain['low'], '+.1f')} to {cell(gain['high'], '+.1f')}); of the truth itself the judge "
            f"says target {ceiling['target']['mean']:.0%}, others {ceiling['others']['mean']:.0%}"
        )
        for bar in found:
            print(f"  {'pass' if bar.passed else 'FAIL'}  {bar.text}: {bar.value}")
        data[kind] = summaries[kind] | {"bars": [vars(bar) for bar in found]}
    return data


def run_bundled(arguments: argparse.Namespace) -> dict[str, Any]:
    backbone, judge = load(arguments), load_judge(arguments.judge)
    rows, pages = [], []
    for entry in load_bundled():
        pair = draw_bundled(entry)
        plan_config, edit_config = make_configs(arguments, pair.source_prompt)
        with fresh_engine(backbone, arguments.cache) as engine:
            done = run(engine, pair, plan_config, edit_config)
            rows.append(measure(backbone, judge, pair, done) | {"title": entry["title"]})
        say(f"{pair.name} ({pair.kind}): planned in {done.plan_seconds:.1f} s, edited in {done.edit_seconds:.1f} s")
        pages.append(sheet_rows(pair, {"edit": done.result.frames}))
    print(table(HEAD, [clip_line(row) for row in rows]), end="\n\n")
    kinds = report_by_kind(rows)
    write_sheet(arguments.sheet, pages)
    return {"machine": describe_machine(backbone), "kinds": kinds, "clips": rows}


def run_scenes(arguments: argparse.Namespace) -> dict[str, Any]:
    backbone, judge = load(arguments), load_judge(arguments.judge)
    size = clip_size(arguments.size, backbone.profile)
    scenes = random_rows(arguments.clips, arguments.scene_seed, arguments.source_style, arguments.split)
    rows: list[dict[str, Any]] = []
    pages: list[Image.Image] = []
    for number in range(len(scenes)):
        with fresh_engine(backbone, arguments.cache) as engine:  # the kinds share the inversion of their clip
            for kind in arguments.kinds:
                pair = random_pair(scenes[number : number + 1], kind, arguments.frames, number, size)
                done = run(engine, pair, *make_configs(arguments, pair.source_prompt))
                rows.append(measure(backbone, judge, pair, done))
                gain = rows[-1]["edit"]["psnr_inside"] - rows[-1]["copy"]["psnr_inside"]
                say(
                    f"{number + 1}/{len(scenes)} {pair.name}: {gain:+.1f} dB over the copy, "
                    f"plan {done.plan_seconds:.1f} s, edit {done.edit_seconds:.1f} s"
                )
                pages.append(sheet_rows(pair, {"edit": done.result.frames}))
    if arguments.each:
        print(table(HEAD, [clip_line(row) for row in rows]), end="\n\n")
    kinds = report_by_kind(rows)
    write_sheet(arguments.sheet, pages, columns=len(arguments.kinds))
    return {"machine": describe_machine(backbone), "kinds": kinds, "clips": rows}


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    if set(kinds) - set(EDITS):
        raise argparse.ArgumentTypeError(f"choose some of {', '.join(EDITS)}")
    return kinds


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.edits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function, clips, frames in (
        ("bundled", run_bundled, 0, 0),
        ("scenes", run_scenes, 12, 16),
    ):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        add_model(command)
        add_settings(command)
        if name != "bundled":
            command.add_argument("--clips", type=int, default=clips)
            command.add_argument("--frames", type=int, default=frames)
            command.add_argument("--kinds", type=_kinds, default=_kinds("colour,background,style"))
            command.add_argument("--size", type=int, help="pixels of a side; default: the model's own")
            command.add_argument("--scene-seed", type=int, default=0, help="draws the clips")
            command.add_argument("--split", choices=("val", "test"), default="test", help="val to tune by")
            command.add_argument("--source-style", help="the style of all sources; default: mixed")
        if name == "scenes":
            command.add_argument("--each", action="store_true", help="also print a line for each clip")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    write_json(arguments.json, arguments.function(arguments))


if __name__ == "__main__":
    main()
