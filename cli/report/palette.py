"""Holds the colours of the page, for a light and for a dark screen. A test holds them to the contrast of WCAG AA."""

from typing import Final

LIGHT: Final = {
    "bg": "#ffffff",
    "card": "#f6f8fa",
    "text": "#1d2330",
    "muted": "#57606a",
    "line": "#d8dee4",
    "blue": "#2f6fb3",
    "green": "#1a7f4b",
    "red": "#c62f2f",
    "orange": "#a85d00",
    "purple": "#7d4fa8",
    "teal": "#0f766e",
    "yellow": "#7a6a00",
    "grey": "#6b7280",
}
DARK: Final = {
    "bg": "#0f141b",
    "card": "#171d27",
    "text": "#e6eaf0",
    "muted": "#a2adbb",
    "line": "#2d3643",
    "blue": "#6ea8e6",
    "green": "#4cc38a",
    "red": "#ff7b72",
    "orange": "#f0a33a",
    "purple": "#c297eb",
    "teal": "#45c4bc",
    "yellow": "#d9c74a",
    "grey": "#8b95a5",
}
OUTCOMES: Final = {
    "completed": "green",
    "timeboxed": "blue",
    "tempfail": "blue",
    "failed": "red",
    "NaN loss": "red",
    "out of GPU memory": "red",
    "over its limit": "red",
    "started over": "red",
    "hung": "red",
    "lost": "orange",
    "not started": "orange",
    "recovered": "orange",
    "yielded": "purple",
    "stopped": "purple",
    "outranked": "purple",
}
"""Outcome of a segment → colour; of one that lives, see `ALIVE`."""
ALIVE: Final = "grey"
ACCOUNTS: Final = {
    "training": "green",
    "start-up": "blue",
    "saving": "teal",
    "suspend/thaw": "yellow",
    "redone": "red",
    "paused": "purple",
    "asleep": "grey",
    "idle": "orange",
}
STATES: Final = {
    "completed": "green",
    "failed": "red",
    "running": "blue",
    "paused": "orange",
    "suspended": "orange",
    "held": "orange",
    "stopped": "purple",
    "timeboxed": "purple",
    "queued": "muted",
    "submitted": "muted",
}

_RULES: Final = """
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--text);background:var(--bg);
max-width:1100px;margin:0 auto;padding:28px 20px 60px;overflow-wrap:anywhere}
h1{font-size:26px;line-height:1.25;margin:0}
h2{font-size:17px;margin:34px 0 8px}
h2 small,p.sub,.note{color:var(--muted);font-weight:400;font-size:13px}
p.sub{font-size:15px;margin:4px 0 18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:27px;line-height:1.15;font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:13px}
.needs{list-style:none;margin:0;padding:0}
.needs li{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--orange);
border-radius:8px;padding:9px 13px;margin:8px 0}
.needs li.bad{border-left-color:var(--red)}
code{font:13px/1.4 ui-monospace,SFMono-Regular,Menlo,monospace;background:var(--bg);border:1px solid var(--line);
border-radius:5px;padding:2px 7px;margin:6px 6px 0 0;display:inline-block;user-select:all;-webkit-user-select:all}
.scroll{overflow-x:auto}
.scroll svg{display:block;width:100%;min-width:760px;height:auto}
.narrow svg{min-width:420px}
svg text{font-size:11px;fill:var(--muted);font-family:system-ui,-apple-system,"Segoe UI",sans-serif}
svg text.name{fill:var(--text)}
.grid{stroke:var(--line)}
.curve{fill:none;stroke-width:1.4;stroke-linejoin:round}
.best{stroke-width:2.4}
.limit{stroke-dasharray:5 4}
.band{opacity:.16}
.two{display:grid;grid-template-columns:minmax(0,11fr) minmax(0,9fr);gap:0 30px}
table{border-collapse:collapse;width:100%;font-size:13px}
td,th{padding:4px 7px;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;overflow-wrap:normal}
td:first-child,td[class^=t-]{white-space:nowrap}
td.long{overflow-wrap:anywhere;min-width:11em}
th{color:var(--muted);font-weight:600}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
.entry{white-space:nowrap;margin-right:8px}
@media(max-width:760px){.two{grid-template-columns:minmax(0,1fr)}body{padding:18px 14px 40px}h1{font-size:22px}}
@media print{body{max-width:none}.scroll{overflow:visible}}
"""


def style_sheet() -> str:
    """Return the style of the page, with each colour as a variable and as classes for strokes, fills and text."""
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in colours.items()) for colours in (LIGHT, DARK)
    )
    classes = "".join(
        f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}.t-{name}{{color:var(--{name})}}"
        f".b-{name}{{background:var(--{name})}}"
        for name in LIGHT
    )
    return (
        f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
        f"{_RULES}{classes}"
    )
