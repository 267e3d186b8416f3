// Small questions about the page's graph, and small changes of it.

const PACK = /^(P2P|IP2P)/;
const MARGIN = 6; // pixels around a drawn element
export const ACTIVE = 0, MUTED = 2, BYPASSED = 4;

export const isOurs = (node) => PACK.test(node?.comfyClass ?? "");

export const widgetOf = (node, name) => node?.widgets?.find((widget) => widget.name === name);

/** The node that a named input is wired to, undefined if none. */
export function before(node, name) {
    const input = node.inputs?.find((slot) => slot.name === name);
    return input?.link == null ? undefined : node.graph.getNodeById(node.graph.getLink(input.link)?.origin_id);
}

/** What is wired to an output: [{node, input}]. */
export function behind(node, slot) {
    const links = (node.outputs?.[slot]?.links ?? []).map((id) => node.graph.getLink(id));
    return links.filter(Boolean).map((link) => {
        const target = node.graph.getNodeById(link.target_id);
        return { node: target, input: target?.inputs?.[link.target_slot] };
    }).filter(({ node: target, input }) => target && input);
}

/** Change a widget as if it had been typed. */
export function setWidget(node, widget, value) {
    widget.value = value;
    widget.callback?.(value);
    node.graph?.setDirtyCanvas(true, true);
    node.graph?.change?.();
}

/** Do something when a node of ours is about to be queued; an error keeps the graph back and is shown. */
export function onQueue(node, act) {
    const [widget] = isOurs(node) ? node.widgets ?? [] : [];
    if (!widget) return;
    const before = widget.beforeQueued;
    widget.beforeQueued = function (...args) {
        before?.apply(this, args);
        act();
    };
}

/** A widget that draws an element; the workflow does not keep it, and the server never sees it. */
export function addElement(node, name, element, height) {
    const widget = node.addDOMWidget(name, name, element, {
        serialize: false,
        hideOnZoom: false,
        margin: MARGIN,
        getMinHeight: () => height() + 2 * MARGIN,
    });
    widget.serialize = false;
    fit(node);
    return widget;
}

/** Make a node as high as what is in it; it never shrinks below what the user chose. */
export function fit(node) {
    const [, height] = node.computeSize();
    if (height > node.size[1]) node.setSize([node.size[0], height]);
    node.setDirtyCanvas?.(true, true);
}

/** An element with a class, a text and children. */
export function make(tag, classes = "", text = "", ...children) {
    const element = document.createElement(tag);
    element.className = classes;
    element.textContent = text;
    element.append(...children);
    return element;
}

const style = make("link");
style.rel = "stylesheet";
style.href = new URL("./p2p.css", import.meta.url);
document.head.append(style);

/** A socket's name in the page's language. */
export const nameOf = (slot) => slot.label ?? slot.localized_name ?? slot.name;
