// P2P Compare: source and edit over each other, with a slider between them.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addElement, fit, make } from "./graph.js";
import { say } from "./texts.js";

const MARGINS = 32, BAR = 26, MOST = 640; // pixels

const address = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);

function build(node) {
    const source = make("img"), edit = make("img", "p2p-over"), line = make("div", "p2p-line");
    const frame = make("div", "p2p-frame", "", source, edit, line);
    const label = make("span", "p2p-label");
    const [back, next] = ["‹", "›"].map((text) => make("button", "p2p-step", text));
    const element = make("div", "p2p-compare", "", frame, make("div", "p2p-bar", "", back, label, next));
    const view = { node, element, source, edit, label, pairs: [], at: 0, height: 160 };

    const slide = (share) => frame.style.setProperty("--p2p-share", `${100 * share}%`);
    frame.addEventListener("pointermove", (event) => {
        const box = frame.getBoundingClientRect();
        slide(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
    });
    slide(0.5);
    back.addEventListener("click", () => show(view, view.at - 1));
    next.addEventListener("click", () => show(view, view.at + 1));
    source.draggable = edit.draggable = false;
    source.addEventListener("load", () => {
        const [width] = node.size;
        view.height = Math.min((width - MARGINS) * source.naturalHeight / source.naturalWidth + BAR, MOST);
        frame.style.minHeight = `${view.height - BAR}px`; // older Nodes 2.0 give a widget no height of their own
        fit(node);
    });
    addElement(node, "p2p_compare", element, () => view.height);
    return view;
}

function show(view, number) {
    const { pairs } = view;
    view.at = (number + pairs.length) % pairs.length;
    const { source, edit, label } = pairs[view.at];
    view.source.src = address(source);
    view.edit.src = address(edit);
    view.label.textContent = say("picture", { label, number: view.at + 1, count: pairs.length });
    view.label.title = say("slide");
}

/** [{source, edit, label}] from the pictures of every seed: [source, edit, edit_2 …]. */
function pairsOf({ labels, pictures }) {
    const pairs = [];
    for (let row = 0; row < pictures.length; row += labels.length)
        for (let member = Math.min(1, labels.length - 1); member < labels.length; member++)
            pairs.push({ source: pictures[row], edit: pictures[row + member], label: labels[member] });
    return pairs;
}

app.registerExtension({
    name: "p2p.compareSlider",
    beforeRegisterNodeDef(type, definition) {
        if (definition.name !== "P2PCompare") return;
        const executed = type.prototype.onExecuted;
        type.prototype.onExecuted = function (output) {
            executed?.call(this, output);
            const [found] = output?.p2p_pairs ?? [];
            if (!found?.pictures.length) return;
            this.p2pCompare ??= build(this);
            this.p2pCompare.pairs = pairsOf(found);
            show(this.p2pCompare, 0);
        };
    },
});
