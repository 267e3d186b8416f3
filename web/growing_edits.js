// P2P Attention Controller shows as many edit sockets as are wired, and one more.

import { app } from "../../scripts/app.js";

const FIRST = "edit", MORE = /^edit_(\d+)$/;
const LAST = 8;
const nameOf = (number) => (number === 1 ? FIRST : `${FIRST}_${number}`);

function trim(node) {
    const sockets = node.inputs.filter((input) => MORE.test(input.name));
    const wired = sockets.filter((input) => input.link != null).map((input) => +input.name.match(MORE)[1]);
    const first = node.inputs.find((input) => input.name === FIRST);
    const shown = Math.min(Math.max(first?.link == null ? 1 : 2, ...wired.map((number) => number + 1)), LAST);
    for (const input of sockets)
        if (+input.name.match(MORE)[1] > shown) node.removeInput(node.inputs.indexOf(input));
    for (let number = 2; number <= shown; number++)
        if (!node.inputs.some((input) => input.name === nameOf(number))) insert(node, number);
    node.setDirtyCanvas?.(true, true);
}

/** A socket behind the edit before it; wires to those behind it follow. */
function insert(node, number) {
    const first = node.inputs.find((input) => input.name === FIRST);
    const localized_name = `${first?.localized_name ?? FIRST}_${number}`; // as the host names it in locales/
    node.addInput(nameOf(number), "P2P_EDIT", { shape: first?.shape, localized_name });
    const [added] = node.inputs.splice(-1, 1);
    const at = node.inputs.findIndex((input) => input.name === nameOf(number - 1)) + 1;
    node.inputs.splice(at, 0, added);
    node.inputs.forEach((input, slot) => {
        const link = input.link != null && node.graph?.getLink(input.link);
        if (link) link.target_slot = slot;
    });
}

app.registerExtension({
    name: "p2p.growingEdits",
    nodeCreated(node) {
        if (node.comfyClass !== "P2PAttentionController") return;
        // Not at once: a graph that is being loaded has not wired its nodes yet.
        const later = () => setTimeout(() => node.graph && !app.configuringGraph && trim(node));
        const changed = node.onConnectionsChange;
        node.onConnectionsChange = function (...args) {
            changed?.apply(this, args);
            later();
        };
        const added = node.onAdded;
        node.onAdded = function (...args) {
            added?.apply(this, args);
            later();
        };
    },
    afterConfigureGraph() {
        for (const node of app.graph.nodes) if (node.comfyClass === "P2PAttentionController") trim(node);
    },
});
