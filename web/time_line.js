// The details of an alignment: tokens, columns, scale, and every word's window on a time line.
//
// A window is dragged by its nearer end; that writes a line of word_windows, or self_replace_steps.

import { before, make, setWidget, widgetOf } from "./graph.js";
import { say } from "./texts.js";

const SNAP = 0.05;
const LINE = /^(.*\S)\s*:\s*[\d.+-]+\s*[-–]\s*[\d.+-]+$/;

/** The node whose word_windows speak for this node's edit: itself, or one that it got the edit from. */
export function windowsOf(node) {
    for (let at = node; at; at = before(at, "edit")) if (widgetOf(at, "word_windows")) return at;
}

const short = (share) => String(+share.toFixed(2));

/** Give a word a line of its own in word_windows. */
export function writeWindow(node, { text, window }) {
    const widget = widgetOf(node, "word_windows");
    const [start, end] = window ?? [0, 0];
    const lines = widget.value.split("\n").filter((line) => line.trim() && line.match(LINE)?.[1] !== text);
    setWidget(node, widget, [...lines, `${text}: ${short(start)}-${short(end)}`].join("\n"));
}

function writeSelf(node, { window }) {
    setWidget(node, widgetOf(node, "self_replace_steps"), +short(window?.[1] ?? 0));
}

/** A time line from 0 to 1; write(row) is called with the window that was dragged, if it can be. */
function timeLine(row, write) {
    const bar = make("div", `p2p-time${write ? " p2p-open" : ""}`);
    const draw = () => {
        const [start, end] = row.window ?? [0, 0];
        const span = make("div", "p2p-span");
        span.style.left = `${100 * start}%`;
        span.style.width = `${100 * (end - start)}%`;
        bar.replaceChildren(span, make("span", "", row.window ? `${short(start)}–${short(end)}` : say("never")));
    };
    draw();
    if (!write) return bar;
    const share = (event) => {
        const box = bar.getBoundingClientRect();
        const raw = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
        return Math.round(raw / SNAP) * SNAP;
    };
    bar.addEventListener("pointerdown", (event) => {
        event.stopPropagation();
        bar.setPointerCapture(event.pointerId);
        const [start, end] = row.window ?? [0, 0];
        const first = !row.fixedStart && Math.abs(share(event) - start) < Math.abs(share(event) - end);
        const move = (moved) => {
            const [low, high] = first ? [Math.min(share(moved), end), end] : [start, Math.max(share(moved), start)];
            row.window = low < high ? [low, high] : null;
            draw();
        };
        move(event);
        bar.addEventListener("pointermove", move);
        bar.addEventListener("pointerup", () => {
            bar.removeEventListener("pointermove", move);
            write(row);
        }, { once: true });
    });
    return bar;
}

/** The table of a node's alignment: one line for every word of the target, one for self-attention. */
export function timeTable(node, table) {
    const writer = windowsOf(node);
    const heads = ["word", "tokens", "columns", "window", "scale"].map((key) => make("div", "p2p-head", say(key)));
    const words = table.spans.flatMap(([, made]) => made).flatMap((row) => [
        make("div", `p2p-${row.state}-text`, row.text),
        make("div", "p2p-small", row.tokens.join(" ")),
        make("div", "p2p-small", row.columns.join(", ")),
        timeLine(row, writer && ((dragged) => writeWindow(writer, dragged))),
        make("div", "", row.scale === 1 ? "" : `× ${short(row.scale)}`),
    ]);
    table.self ??= { window: table.self_window, fixedStart: true };
    const self = make("div", "p2p-small", say("self"));
    self.style.gridColumn = "1 / 4";
    return make("div", "p2p-table", "", ...heads, ...words, self,
        timeLine(table.self, writer && ((dragged) => writeSelf(writer, dragged))), make("div"));
}
