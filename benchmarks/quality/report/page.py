"""The report page: one HTML file with its style and plots inside, and the clips beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.intervals import Bar
from benchmarks.quality.report import plots
from benchmarks.quality.cases import KINDS, MOTIONS
from benchmarks.quality.contestants import BOUND, COPY, DEFAULT, SAME_COUNT
from benchmarks.quality.report.summary import Contest, Interval, curve, pairs_by_case, uniform_for_adaptive
from benchmarks.quality.report.tables import (
    COLUMNS,
    MAIN_COLUMNS,
    about,
    all_bars,
    bar_table,
    ranked,
    score_table,
    spread,
)

STYLE = Path(__file__).with_name("page.css")
LOWER_IS_BETTER = {"temporal", "seconds", "peak_memory"}
RANKED = {"psnr", "psnr_inside", "psnr_outside", "ssim_inside", "psnr_near"} | LOWER_IS_BETTER
PAIR_MARKS = {"chosen": "adaptive", "even": "2 even", "best": "best"}  # what is ringed -> its way in the rows
WORST = 12  # sheets of the edits furthest from their bound


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = (), name: str = "") -> str:
    """Cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    kinds = classes or [""] * len(rows)
    body = "".join(
        f'<tr class="{kind}">{"".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row)}</tr>'
        for kind, row in zip(kinds, rows, strict=True)
    )
    return f'<div class="card scroll"><table class="{name}"><tr>{top}</tr>{body}</table></div>'


def _small_spread(text: str) -> str:
    mean, sign, half = escape(text).partition(" ±")
    return f"{mean} <small>±{half}</small>" if sign else mean


def _scores(contest: Contest, names: list[str], columns: tuple[str, ...] = MAIN_COLUMNS) -> str:
    """The best of each column, references apart, is set bold."""
    head, rows = score_table(contest, names, columns)
    best: dict[int, float] = {}
    for number, column in enumerate(columns):
        means = [contest.mean(who, column)["mean"] for who in names if who not in (COPY, BOUND)]
        known = [m for m in means if m is not None]
        if column in RANKED and len(known) > 1:
            best[number] = min(known) if column in LOWER_IS_BETTER else max(known)
    cells = []
    for who, row in zip(names, rows, strict=True):
        line = [escape(row[0])]
        for number, text in enumerate(row[1:]):
            shown = _small_spread(text)
            mark = who not in (COPY, BOUND) and contest.mean(who, columns[number])["mean"] == best.get(number, math.nan)
            line.append(f'<td class="best">{shown}</td>' if mark else shown)
        cells.append(line)
    classes = ["own" if who in (DEFAULT, SAME_COUNT) else "reference" if who in (COPY, BOUND) else "" for who in names]
    return _html_table([escape(h) for h in head], cells, classes)


def _difference_plot(contest: Contest, names: Sequence[tuple[str, str]], score: str, label: str) -> str:
    rows = []
    for who, against in names:
        found = contest.difference(who, against, score)
        if found["mean"] is not None:
            rows.append((who, _point(0, found)))
    return f'<div class="card">{plots.intervals(rows, label, score in LOWER_IS_BETTER)}</div>' if rows else ""


def _point(x: float, found: Interval) -> plots.Point:
    return plots.Point(x, found["mean"], found["low"], found["high"])


def _line(rows: Sequence[dict[str, Any]], x: str, score: str) -> list[plots.Point]:
    return [_point(v, found) for v, found in curve(rows, x, score) if found["mean"] is not None]


# --- sections -------------------------------------------------------------------------------------


def _tiles(short: Contest) -> str:
    """The four figures that a reader looks for first."""
    tiles = []

    def tile(value: str, text: str) -> None:
        tiles.append(f'<div class="card"><b>{value}</b><span>{escape(text)}</span></div>')

    own = short.mean(DEFAULT, "psnr")
    if own["mean"] is None:
        return ""
    tile(f"{own['mean']:.1f} dB", f"PSNR of the default to the true edit; its bound {_mean(short, BOUND, 'psnr'):.1f}")
    for other in ("tokenflow", "paper-adapted"):
        found = short.difference(DEFAULT, other, "psnr")
        if found["mean"] is not None:
            tile(f"{found['mean']:+.1f} dB", f"against {other} at equal steps")
    joint = short.difference(DEFAULT, "joint", "psnr")
    if joint["mean"] is not None:
        tile(f"{joint['mean']:+.1f} dB", "against all frames edited together")
    tile(f"{_mean(short, DEFAULT, 'seconds'):.1f} s", "plan and edit of a short clip, nothing known before")
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _mean(contest: Contest, who: str, score: str) -> float:
    found = contest.mean(who, score)["mean"]
    return math.nan if found is None else found


def _bars(data: dict[str, Any]) -> str:
    out = []
    for topic, bars in all_bars(data).items():
        head, rows = bar_table(bars)
        cells = [[escape(text), *map(_answer, line)] for text, line in rows]
        out.append(f"<h3>{escape(topic)}</h3>" + _html_table(head, cells, name="bars"))
    return "".join(out)


def _answer(bar: Bar | None) -> str:
    if bar is None:
        return ""
    value, sign, spread = escape(bar.value).partition(" (")
    shown = f"{value} <small>({spread}</small>" if sign else value
    return f'<td class="yes">✓ {shown}</td>' if bar.passed else f'<td class="no">✗ {shown}</td>'


def _methods(data: dict[str, Any], contest: Contest) -> str:
    short, long = contest.only(long=False), contest.only(long=True)
    names = ranked(data, short)
    others = [(who, DEFAULT) for who in names if who not in (DEFAULT, COPY, BOUND)]
    out = [_scores(short, names)]
    out.append('<div class="row pair">')
    out.append(_difference_plot(short, others, "psnr", "PSNR less the default's, dB"))
    out.append(_difference_plot(short, others, "temporal", "temporal error less the default's"))
    out.append("</div>")
    for title, field in (("By kind of edit", "kind"), ("By motion", "group")):
        found = {row[field] for row in data["contest"] if not row["long"]}
        values = [value for value in (*KINDS, *MOTIONS) if value in found]
        if len(values) > 1:
            out.append(f"<h3>{title}: PSNR to the truth, dB</h3>" + _by(short, names, field, values, "psnr"))
    if long.clips:
        out.append("<h3>Long clips</h3>" + _scores(long, ranked(data, long)))
    return "".join(out)


def _by(contest: Contest, names: list[str], field: str, values: list[str], score: str) -> str:
    parts = {value: contest.only(**{field: value}) for value in values}
    _, form, scale = COLUMNS[score]
    rows = []
    for who in names:
        found = [part.mean(who, score) for part in parts.values()]
        rows.append([escape(who), *(_small_spread(spread(f, form, scale)) for f in found)])
    classes = ["own" if who == DEFAULT else "reference" if who in (COPY, BOUND) else "" for who in names]
    return _html_table(["", *map(escape, values)], rows, classes)


def _parts(data: dict[str, Any], short: Contest) -> str:
    texts = {who["name"]: who for who in data["meta"]["contestants"]}
    out = []
    for group, text in (
        ("part", "The default with one part switched off, or one on that it leaves out, less the default."),
        ("part at equal keyframes", "The same for the parts that choose keyframes, all given the default's number."),
        ("variant", "The default with settings changed, less the default."),
    ):
        names = ranked(data, short, group)
        pairs = [(who, texts[who]["against"]) for who in names if who != texts[who]["against"] and who != SAME_COUNT]
        if not pairs:
            continue
        out.append(f"<p>{text}</p>")
        out.append('<div class="row pair">')
        out.append(_difference_plot(short, pairs, "psnr", "PSNR to the truth, dB: to the left the default is better"))
        out.append(_difference_plot(short, pairs, "temporal", "temporal error: to the right the default is better"))
        out.append("</div>")
        out.append(_scores(short, names))
    width = data["meta"]["feature_width"]
    if width <= 64:
        out.append(f"<p>Features of this model are {width} wide and are not reduced: that part has nothing to do.</p>")
    return "".join(out)


def _prune(rows: list[dict[str, Any]]) -> str:
    ways = list(dict.fromkeys(row["way"] for row in rows))
    keyframes = max(row["keyframes"] for row in rows)
    out = [f"<p>{len({r['case'] for r in rows})} clips at up to {keyframes} keyframes.</p>", plots.key(ways)]
    out.append('<div class="row">')
    unpruned = over_all = curve([r for r in rows if r["ratio"] == 0], "ratio", "psnr")
    for score, label in (("psnr", "PSNR to the truth, dB"), ("psnr_near", "PSNR to the unpruned edit, dB")):
        series = {way: _line([r for r in rows if r["way"] == way and r["ratio"] > 0], "ratio", score) for way in ways}
        marks = {"all tokens": over_all[0][1]["mean"]} if score == "psnr" and unpruned else {"35 dB": 35.0}
        out.append(f'<div class="card">{plots.lines(series, "share of tokens pruned", label, marks)}</div>')
    return "".join([*out, "</div>"])


def _keyframes(rows: list[dict[str, Any]]) -> str:
    groups = list(dict.fromkeys(row["group"] for row in rows))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    out = [plots.key(ways), '<div class="row">']
    for group in groups:
        mine = [row for row in rows if row["group"] == group]
        series = {w: _line([r for r in mine if r["way"] == w], "asked", "psnr_near") for w in ways}
        plot = plots.lines(series, "keyframes", "PSNR to the joint edit, dB")
        out.append(f'<div class="card"><h3>{escape(group)}, {len({r["case"] for r in mine})} clips</h3>{plot}</div>')
    out.append("</div>")
    counts = sorted({row["asked"] for row in rows})
    table = []
    for group in groups:
        mine = [row for row in rows if row["group"] == group]
        found = {k: n for k, _, n in uniform_for_adaptive(mine)}
        most = f"over {counts[-1]}"
        cells = (f"{found[k]:.1f}" if math.isfinite(found.get(k, math.inf)) else most for k in counts)
        table.append([escape(group), *cells])
    text = "<p>How many keyframes uniform needs for the PSNR that adaptive has with so many:</p>"
    return "".join([*out, text, _html_table(["", *map(str, counts)], table)])


def _pairs(rows: list[dict[str, Any]]) -> str:
    out = [plots.key(["every pair of keyframes", *PAIR_MARKS]), '<div class="row">']
    for case, ways in pairs_by_case(rows).items():
        tried = (row for row in rows if row["case"] == case and row["way"] == "pair")
        values = {tuple(row["frames"]): row["psnr_near"] for row in tried if row["psnr_near"] is not None}
        marks = [tuple(ways[way]["frames"]) if way in ways else None for way in PAIR_MARKS.values()]
        told = ", ".join(f"{way} {row['psnr_near']:.2f} dB" for way, row in ways.items())
        plot = plots.pair_map(values, marks, "to joint, dB")
        out.append(f'<div class="card"><h3>{escape(case)}</h3><p>{escape(told)}</p>{plot}</div>')
    return "".join([*out, "</div>"])


def _clips(data: dict[str, Any], short: Contest) -> str:
    media = {row["case"]: row for row in data["media"]}
    out = []
    for row in media.values():
        if row["film"]:
            source, prompt = map(escape, row["prompts"])
            caption = f"{escape(row['kind'])}: {source} → {prompt}"
            out.append(
                f'<figure><video src="{escape(row["film"])}" poster="" controls loop muted autoplay playsinline>'
                f"</video><figcaption>{caption}</figcaption></figure>"
            )

    def loss(case: str) -> float:
        return short.value(case, BOUND, "psnr") - short.value(case, DEFAULT, "psnr")

    worst = sorted((case for case in short.cases if case in media and math.isfinite(loss(case))), key=loss)[::-1]
    if worst:
        out.append(
            "<h3>The default's edits furthest below their bound</h3><p>Source, truth, edit, and the error of the edit, "
            "four times as bright.</p><div class='row sheets'>"
        )
        for case in worst[:WORST]:
            row = media[case]
            out.append(
                f'<div class="card"><figure><img src="{escape(row["sheet"])}" loading="lazy" alt="">'
                f"<figcaption>{escape(case)}<br>{escape(row['prompts'][1])}<br>{loss(case):.1f} dB below its bound"
                "</figcaption></figure></div>"
            )
        out.append("</div>")
    return "".join(out)


def _about(data: dict[str, Any]) -> str:
    items = "".join(
        f'<dt>{name}</dt><dd class="{"code" if name == "command" else ""}">{escape(text)}</dd>'
        for name, text in about(data)
    )
    names = "".join(
        f"<dt>{escape(who['name'])}</dt><dd>{escape(who['text'])}</dd>" for who in data["meta"]["contestants"]
    )
    return f'<div class="card"><dl>{items}</dl></div><h3>Who takes part</h3><div class="card"><dl>{names}</dl></div>'


def page(data: dict[str, Any]) -> str:
    contest = Contest(data["contest"])
    short = contest.only(long=False)
    parts = [who["name"] for who in data["meta"]["contestants"] if who["group"] != "method"]
    sections = {
        "Methods": _methods(data, contest) if contest.cases else "",
        "Parts": _parts(data, short) if parts and short.cases else "",
        "Slimming": _prune(data["prune"]) if data["prune"] else "",
        "Keyframes": _keyframes(data["keyframes"]) if data["keyframes"] else "",
        "Two keyframes": _pairs(data["pairs"]) if data["pairs"] else "",
        "What must be shown": _bars(data),
        "Clips": _clips(data, short),
        "How it was made": _about(data),
    }
    shown = {title: body for title, body in sections.items() if body}
    links = "".join(f'<a href="#s{i}">{escape(title)}</a>' for i, title in enumerate(shown))
    body = "".join(f'<h2 id="s{i}">{escape(title)}</h2>{text}' for i, (title, text) in enumerate(shown.items()))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>AdaFlow: quality against rendered truth</title><style>{STYLE.read_text()}</style></head><body><main>"
        "<h1>Quality against rendered truth</h1>"
        "<p>Every clip is drawn twice, before and after its edit, so that the true result and motion are known. "
        "Means over clips with 95 % intervals; differences are paired by clip. The temporal error is the change along "
        "the true flow, relative to that of the autoencoded truth, and counts only where the judge sees the edit.</p>"
        f"<nav>{links}</nav>{_tiles(short)}{body}</main></body></html>\n"
    )
