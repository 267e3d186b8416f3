// What the page's scripts say, by language. English stands in where a language lacks a text.

import { app } from "../../scripts/app.js";

const TEXTS = {
    en: {
        kept: "kept",
        swapped: "swapped",
        added: "added",
        removed: "removed",
        details: "details",
        less: "less",
        word: "word",
        tokens: "tokens",
        columns: "columns",
        window: "when it looks where the source does",
        scale: "scale",
        never: "never",
        self: "self-attention",
        nothing: "Source and target are the same.",
        insertHint: "{word}: {state}. Click to use this word.",
        nowhere: "No node that is wired to this one takes words.",
        thisWindow: "its window here",
        windowFixed: "The windows come from {node}.",
        picture: "{label} · {number} of {count}",
        slide: "source ◂ ▸ edit",
        failed: "{node} stopped",
        bypassed:
            "{node} is bypassed and cannot pass its {outputs} on. Wire a CLIPTextEncode of the prompt " +
            "to its positive, or switch its enabled off instead.",
        bypassedOther:
            "{node} is bypassed and has nothing to pass on as its {outputs}. Bypass the nodes behind " +
            "it as well, or switch it on again.",
        muted:
            "{node} is muted, so {target} gets no {outputs}. Bypass it instead (Ctrl+B), or mute the " +
            "nodes behind it as well.",
        noisy:
            "{node} is bypassed, but its latent comes from an inversion and is noisy: the sampler " +
            "would not find the photograph in it. Switch its enabled off instead.",
        other:
            "{node} is bypassed and passes its {input} on as {outputs}. Bypass the nodes behind it " +
            "as well, or wire {outputs} another way.",
    },
    zh: {
        kept: "保留",
        swapped: "替换",
        added: "新增",
        removed: "删除",
        details: "详情",
        less: "收起",
        word: "词",
        tokens: "token",
        columns: "列",
        window: "注意力取自源图的时段",
        scale: "倍率",
        never: "从不",
        self: "自注意力",
        nothing: "源提示词与目标提示词相同。",
        insertHint: "{word}：{state}。点击使用这个词。",
        nowhere: "与此节点相连的节点中没有可填入词语的。",
        thisWindow: "本节点中该词的时段",
        windowFixed: "时段由 {node} 决定。",
        picture: "{label} · 第 {number} / {count} 张",
        slide: "源图 ◂ ▸ 编辑",
        failed: "{node} 已停止",
        bypassed:
            "{node} 已被绕过，无法传递它的 {outputs}。请把该提示词的 CLIPTextEncode 接到它的“正面条件”，" +
            "或者改为关闭它的“启用”。",
        bypassedOther: "{node} 已被绕过，没有可作为 {outputs} 传递的内容。请同时绕过其后的节点，或重新启用它。",
        muted: "{node} 已被禁用，因此 {target} 得不到 {outputs}。请改用绕过（Ctrl+B），或同时禁用其后的节点。",
        noisy:
            "{node} 已被绕过，但它的 Latent 来自反演，带有噪波，采样器无法从中还原照片。请改为关闭它的“启用”。",
        other: "{node} 已被绕过，会把它的 {input} 当作 {outputs} 传递。请同时绕过其后的节点，或用别的方式连接 {outputs}。",
    },
};

const language = () => app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";

/** A text in the page's language, with {names} filled in. */
export function say(key, values = {}) {
    return filled(TEXTS[language()]?.[key] ?? TEXTS.en[key], values);
}

const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// What nodes say themselves, by language: English sentences with {names} and their translations.
let sentences;
const readSentences = () => fetch(new URL("sentences.json", import.meta.url)).then((answer) => answer.json());

/** A sentence of a node in the page's language; one without a translation stays as it is. */
export async function translated(sentence) {
    if (language() === "en") return sentence;
    const known = await (sentences ??= readSentences().catch(() => ({})));
    for (const [english, other] of Object.entries(known[language()] ?? {})) {
        const pattern = english.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{(\w+)\}/g, "(?<$1>[^]*?)");
        const found = sentence.match(new RegExp(`^${pattern}$`));
        if (!found) continue;
        const values = {};
        for (const [name, value] of Object.entries(found.groups ?? {})) values[name] = await translated(value);
        return filled(other, values);
    }
    return sentence;
}
