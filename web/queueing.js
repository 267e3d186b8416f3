// Before a graph is queued: what a bypassed or muted node of ours would leave without its input.
//
// The server would tell it of another node ("KSampler: required input is missing").

import { app } from "../../scripts/app.js";
import { ACTIVE, BYPASSED, MUTED, behind, isOurs, nameOf, onQueue } from "./graph.js";
import { say } from "./texts.js";

const OPTIONAL = 7; // how the page draws the socket of an optional input

/** The input that the page passes on in an output's place; undefined if it passes nothing on. */
function passedOn(node, slot) {
    if (node.mode !== BYPASSED) return undefined;
    const type = node.outputs[slot].type;
    const opposite = node.inputs[slot];
    const input = opposite?.type === type ? opposite : node.inputs.find((other) => other.type === type);
    return input?.link == null ? undefined : input;
}

/** Whether anything that is shown or saved depends on this node. */
function matters(node, seen = new Set()) {
    if (seen.has(node) || node.mode === MUTED) return false;
    seen.add(node);
    if (node.mode === ACTIVE && node.constructor.nodeData?.output_node) return true;
    return (node.outputs ?? []).some((_, slot) => behind(node, slot).some((wire) => matters(wire.node, seen)));
}

/** Who misses what: [{target, output, passed}] for nodes of others, ours speak for themselves. */
function missing(node) {
    return node.outputs.flatMap((output, slot) =>
        behind(node, slot)
            .filter(({ node: target, input }) =>
                target.mode === ACTIVE && !isOurs(target) && input.shape !== OPTIONAL && matters(target))
            .map(({ node: target }) => ({ target, output, passed: passedOn(node, slot) })));
}

function complaint(node) {
    if (node.mode !== BYPASSED && node.mode !== MUTED) return;
    const wires = missing(node);
    const names = { node: node.title };
    const lost = wires.filter(({ passed }) => !passed);
    if (lost.length) {
        const outputs = [...new Set(lost.map(({ output }) => nameOf(output)))].join(", ");
        const muted = node.mode === MUTED, has = node.inputs.some((input) => input.name === "positive");
        return say(muted ? "muted" : has ? "bypassed" : "bypassedOther", { ...names, outputs, target: lost[0].target.title });
    }
    if (wires.some(({ output }) => output.name === "latent") && node.inputs.some((i) => i.name === "inversion" && i.link != null))
        return say("noisy", names);
    const wrong = wires.find(({ output, passed }) => ["negative", "uncond"].includes(output.name) && passed.name !== output.name);
    if (wrong) return say("other", { ...names, input: nameOf(wrong.passed), outputs: nameOf(wrong.output) });
}

app.registerExtension({
    name: "p2p.queueing",
    nodeCreated(node) {
        onQueue(node, () => {
            const said = complaint(node);
            if (said) throw new Error(said); // the page shows it, and queues nothing
        });
    },
});
