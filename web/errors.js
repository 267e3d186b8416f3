// The sentence of an error where the user looks: in a message that pops up, and on the node.
//
// The page itself keeps it behind "View details".

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { addElement, isOurs, make, onQueue } from "./graph.js";
import { say, translated } from "./texts.js";

const FOLDER = decodeURIComponent(new URL(".", import.meta.url).pathname.split("/").at(-2));
const SENTENCES = ["exception_during_validation", "exception_during_inner_validation"];
const LIFE = 15000, WAIT = 200, TRIES = 25; // milliseconds
const OF_THE_PAGE = "[data-testid='error-overlay'], .p-dialog-content"; // its own message of an error
const marked = new Set();
let looking;

function note(node, text) {
    if (!node) return;
    clear(node);
    const element = make("div", "p2p-message", text);
    node.p2pMessage = addElement(node, "p2p_message", element, () => 24 + 17 * Math.ceil(text.length / (node.size[0] / 6.2)));
    marked.add(node);
}

function clear(node) {
    const at = node.widgets?.indexOf(node.p2pMessage) ?? -1;
    if (at >= 0) {
        const [{ computedHeight }] = [node.p2pMessage];
        node.p2pMessage.onRemove?.();
        node.widgets.splice(at, 1);
        if (computedHeight) node.setSize([node.size[0], Math.max(node.computeSize()[1], node.size[1] - computedHeight)]);
    }
    node.p2pMessage = undefined;
    marked.delete(node);
}

const clearAll = () => marked.forEach(clear);

/** Whether a run failed with a sentence of this pack, in whatever node. */
function isSentence({ node_type, exception_type, traceback }) {
    const places = [traceback].flat().join("\n").match(/File "[^"]+"/g) ?? [];
    const last = places.at(-1)?.replaceAll("\\", "/") ?? "";
    return exception_type === "ValueError" && (isOurs({ comfyClass: node_type }) || last.includes(`/${FOLDER}/`));
}

api.addEventListener("execution_start", clearAll);
api.addEventListener("execution_error", async ({ detail }) => {
    if (!isSentence(detail)) return;
    const node = app.graph.getNodeById(detail.node_id) ?? app.graph.getNodeById(+detail.node_id);
    const text = await translated(detail.exception_message.trim());
    popUp(node?.title ?? detail.node_type, text);
    note(node, text);
});

function popUp(title, text) {
    app.extensionManager.toast.add({ severity: "error", summary: say("failed", { node: title }), detail: text, life: LIFE });
}

/** Once the server has refused a graph, its errors are here; there is no event for it. */
async function lookForErrors(tries = TRIES) {
    const found = Object.entries(app.extensionManager.lastNodeErrors ?? app.lastNodeErrors ?? {});
    for (const [id, { class_type, errors }] of found) {
        const error = isOurs({ comfyClass: class_type }) && errors.find(({ type }) => SENTENCES.includes(type));
        if (!error) continue;
        const node = app.graph.getNodeById(id) ?? app.graph.getNodeById(+id);
        const text = await translated(error.details.trim());
        note(node, text);
        setTimeout(() => { // some pages only say that something failed, and none says it in Chinese
            const shown = [...document.querySelectorAll(OF_THE_PAGE)].some((message) => message.textContent.includes(text));
            if (!shown) popUp(node?.title ?? class_type, text);
        }, 2 * WAIT);
    }
    if (!found.length && tries) looking = setTimeout(lookForErrors, WAIT, tries - 1);
}

app.registerExtension({
    name: "p2p.errors",
    nodeCreated(node) {
        onQueue(node, () => {
            clearAll();
            clearTimeout(looking);
            looking = setTimeout(lookForErrors, WAIT);
        });
    },
});
