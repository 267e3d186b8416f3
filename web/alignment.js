// Edit nodes show their words as chips: swapped pairs, kept, added and removed ones.
//
// A click puts a word where words are asked for: into this node, or those it is wired to.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addElement, behind, fit, make, setWidget, widgetOf } from "./graph.js";
import { say } from "./texts.js";
import { timeTable, windowsOf, writeWindow } from "./time_line.js";

const SOURCE = "source", TARGET = "target";
/** The widgets that take words, and of which prompt. */
const PLACES = {
    P2PReweight: { words: [TARGET] },
    P2PLocalBlendMask: { source_words: [SOURCE], target_words: [TARGET] },
    P2PEdit: { blend_words: [SOURCE, TARGET] },
    P2PAttentionMaps: { words: [SOURCE, TARGET] },
};
const ON_THE_WAY = ["P2P_EDIT", "P2P_RECORD"];
const TEXT_PREVIEW = "$$node-text-preview";
const MOST = 320; // pixels
const LOOK_BACK = 50; // runs

/** Where a word of this side can go: [{node, widget}], this node first. */
function placesFor(node, side, seen = new Set()) {
    if (seen.has(node)) return [];
    seen.add(node);
    const own = Object.entries(PLACES[node.comfyClass] ?? {})
        .filter(([name, sides]) => sides.includes(side) && widgetOf(node, name))
        .map(([name]) => ({ node, widget: widgetOf(node, name) }));
    const next = (node.outputs ?? []).flatMap((output, slot) =>
        ON_THE_WAY.includes(output.type) ? behind(node, slot).map((wire) => wire.node) : []);
    return [...own, ...next.flatMap((other) => placesFor(other, side, seen))];
}

/** Add a word to a list of words, or take it out again. */
function toggle(node, widget, word) {
    const words = widget.value.split(/[,\n]/).map((part) => part.trim()).filter(Boolean);
    const rest = words.filter((other) => other !== word);
    setWidget(node, widget, (rest.length < words.length ? rest : [...words, word]).join(", "));
}

function choices(node, side, row) {
    const found = placesFor(node, side).map((place) => ({
        text: `${place.node.title} · ${place.widget.label ?? place.widget.name}`,
        use: () => toggle(place.node, place.widget, row.text),
    }));
    const windows = side === TARGET && windowsOf(node);
    if (windows) found.push({ text: say("thisWindow"), use: () => writeWindow(windows, row) });
    return found;
}

function click(event, node, side, row) {
    const found = choices(node, side, row);
    if (found.length === 1) return found[0].use();
    if (!found.length) return app.extensionManager.toast.add({ severity: "info", summary: say("nowhere"), life: 4000 });
    const menu = make("div", "p2p-menu");
    for (const { text, use } of found) {
        const button = make("button", "", text);
        button.addEventListener("click", use);
        menu.append(button);
    }
    menu.style.left = `${event.clientX}px`;
    menu.style.top = `${event.clientY}px`;
    document.body.append(menu);
    setTimeout(() => document.addEventListener("click", () => menu.remove(), { once: true }));
}

function chip(node, side, row) {
    const old = row.state === "swapped" && side === SOURCE;
    const button = make("button", `p2p-chip p2p-${old ? "old" : row.state}`, row.text);
    button.title = say("insertHint", { word: row.text, state: say(row.state) });
    if ((row.scale ?? 1) !== 1) button.append(make("span", "p2p-scale", `× ${+row.scale.toFixed(2)}`));
    button.addEventListener("click", (event) => click(event, node, side, row));
    return button;
}

/** One place in the prompts: a kept word once, a swap as old → new. */
function pair(node, [old, made]) {
    if (made[0]?.state === "kept") return chip(node, TARGET, made[0]);
    const arrow = old.length && made.length ? [make("span", "", "→")] : [];
    const chips = [...old.map((row) => chip(node, SOURCE, row)), ...arrow, ...made.map((row) => chip(node, TARGET, row))];
    return make("span", "p2p-pair", "", ...chips);
}

function draw(view) {
    const { node, element, table, open } = view;
    const more = make("button", "p2p-more", say(open ? "less" : "details"));
    more.addEventListener("click", () => draw(Object.assign(view, { open: !open })));
    const flow = make("div", "p2p-flow", "", ...table.spans.map((span) => pair(node, span)), more);
    const body = make("div", "", "", flow);
    if (table.note) body.prepend(make("div", "p2p-note", table.note));
    if (open) body.append(timeTable(node, table));
    element.replaceChildren(body);
    view.watcher.disconnect();
    view.watcher.observe(body);
}

function build(node) {
    const element = make("div", "p2p-words");
    const view = { node, element, open: false, height: 40 };
    view.watcher = new ResizeObserver(() => {
        const height = Math.min((element.firstChild?.offsetHeight ?? 0) + 8, MOST);
        if (height <= 8 || Math.abs(height - view.height) < 2) return;
        const more = height - view.height;
        view.height = height;
        if (more < 0) node.setSize([node.size[0], Math.max(node.size[1] + more, node.computeSize()[1])]);
        fit(node);
    });
    addElement(node, "p2p_alignment", element, () => view.height);
    return view;
}

/** The same in words, which the server sends for pages without this script. */
function dropText(node) {
    const at = node.widgets.findIndex((widget) => widget.name === TEXT_PREVIEW);
    if (at < 0) return;
    node.widgets[at].onRemove?.();
    node.widgets.splice(at, 1);
}

/** A cached node sends nothing: what it said when it ran is in the history. */
api.addEventListener("execution_cached", async ({ detail }) => {
    const cached = new Set(detail.nodes.map(String));
    const bare = app.graph.nodes.filter((node) => node.p2pTakesAlignment && !node.p2pAlignment && cached.has(String(node.id)));
    if (!bare.length) return;
    const { output } = await app.graphToPrompt();
    const history = await (await api.fetchApi(`/history?max_items=${LOOK_BACK}`)).json();
    const core = (graph, id) => JSON.stringify([graph?.[id]?.class_type, graph?.[id]?.inputs]);
    for (const node of bare) {
        const run = Object.values(history).findLast(({ prompt, outputs }) =>
            outputs[node.id]?.p2p_alignment && core(prompt[2], node.id) === core(output, node.id));
        if (run) node.onExecuted(run.outputs[node.id]);
    }
});

app.registerExtension({
    name: "p2p.alignment",
    beforeRegisterNodeDef(type, definition) {
        if (!definition.name.startsWith("P2P")) return;
        type.prototype.p2pTakesAlignment = true;
        const executed = type.prototype.onExecuted;
        type.prototype.onExecuted = function (output) {
            executed?.call(this, output);
            const [table] = output?.p2p_alignment ?? [];
            if (!table) return;
            dropText(this);
            this.p2pAlignment ??= build(this);
            draw(Object.assign(this.p2pAlignment, { table }));
        };
    },
});
