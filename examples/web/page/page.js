// The page around the model: what is chosen, what is shown. The model runs in worker.js.
const $ = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`);

let models = [];
let source = null; // what is open, or to be opened
let opened = null; // what the open model says of itself
let shown = false; // whether a text is there, to be written anew when the model changes

// The worker: a question has one answer, and perhaps pieces of text before it.
// One that has died takes its model along; the next question starts another.
let worker = null;
const waiting = new Map();
let last = 0;

function start() {
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => {
    const of = waiting.get(data.id);
    if (!of) return;
    if (data.text !== undefined) return of.piece(data.text);
    waiting.delete(data.id);
    if (data.failed !== undefined) of.no(new Error(data.failed));
    else of.yes(data.answer);
    if (data.dead) bury(data.failed);
  };
  worker.onerror = (event) => bury(event.message || "worker.js could not be started");
}

function bury(reason) {
  worker.terminate();
  worker = null;
  opened = null;
  for (const of of waiting.values()) of.no(new Error(reason));
  waiting.clear();
}

function ask(chore, data = {}, piece = () => {}) {
  if (!worker) start();
  const id = ++last;
  return new Promise((yes, no) => {
    waiting.set(id, { yes, no, piece });
    worker.postMessage({ ...data, chore, id });
  });
}

function state(name, words) {
  document.body.dataset.state = name;
  $("status").textContent = words;
  $("go").disabled = name !== "ready" && name !== "written";
  $("stop").disabled = name !== "writing";
}

// What went wrong, and what is done when the visitor asks for it again.
function fail(error, again) {
  state("failed", "");
  if (opened) $("go").disabled = false;
  $("reason").textContent = error.message;
  $("again").onclick = again;
  $("error").hidden = false;
}

async function open(model) {
  const what = source = { ...model }; // another one each time, so that of two the later counts
  $("error").hidden = true;
  state("loading", `loading ${what.name}`);
  try {
    opened = null;
    const facts = await ask("open", { ...what, device: chosen("device").value });
    if (source !== what) return; // another was chosen meanwhile
    opened = facts;
    show(facts);
    state("ready", `${facts.layers} layers, ${count(facts.parameters)} parameters, ${chosen("device").value.toUpperCase()}`);
    if (shown) await write();
  } catch (error) {
    if (source === what) fail(error, () => open(model));
  }
}

function show(facts) {
  $("name").textContent = facts.placement;
  $("summary").textContent = facts.summary ?? `a placement of its own, in a model of type ${facts.architecture}`;
  $("pictures").replaceChildren(...facts.blocks.map((block) => {
    const figure = document.createElement("figure");
    figure.innerHTML = block.svg; // drawn by the library, of numbers and names of its own
    const caption = document.createElement("figcaption");
    const equation = document.createElement("code");
    equation.textContent = block.equation;
    caption.append(block.layers, equation);
    figure.append(caption);
    return figure;
  }));
  const around = [
    facts.embedding_norm ? "The embedding is normed." : "",
    facts.final_norm ? "A norm stands before the head." : "The last block's norm is the one before the head.",
  ];
  $("around").textContent = around.join(" ").trim();
}

async function write() {
  if (!opened) return;
  const number = (id) => ($(id).value === "" ? null : Number($(id).value));
  const request = {
    prompt: $("prompt").value,
    tokens: number("tokens") ?? 160,
    temperature: number("temperature") ?? 0.8,
    top_k: number("top-k"),
    top_p: number("top-p"),
    seed: number("seed") ?? 0,
  };
  $("error").hidden = true;
  $("said").textContent = request.prompt;
  $("written").textContent = "";
  shown = true;
  const of = source;
  state("writing", "writing");
  try {
    const figures = await ask("write", { request }, (text) => {
      if (source === of) $("written").append(text);
    });
    if (source !== of) return;
    const why = figures.stopped ? ", stopped" : figures.ending === "end" ? ", ended by the model" : "";
    const rate = figures.decode_seconds > 0 ? `, ${(figures.decoded / figures.decode_seconds).toFixed(0)} tokens/s` : "";
    state("written", `${figures.tokens} tokens${rate}${why}`);
  } catch (error) {
    if (source === of) fail(error, opened ? write : () => open(of));
  }
}

function count(n) {
  if (n < 1e6) return `${(n / 1e3).toFixed(0)} thousand`;
  return n < 1e9 ? `${(n / 1e6).toFixed(1)} million` : `${(n / 1e9).toFixed(1)} billion`;
}

function choice(model, first) {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "model", value: model.name, checked: first });
  input.onchange = () => switchTo(model);
  // A choice that stands already changes nothing: where it failed, it is tried again.
  input.onclick = () => { if (!opened && document.body.dataset.state === "failed" && source?.address === model.address) switchTo(model); };
  label.append(input, ` ${model.name}`);
  return label;
}

function switchTo(model) {
  worker?.postMessage({ chore: "stop" });
  return open(model);
}

function own(model) {
  const checked = chosen("model");
  if (checked) checked.checked = false;
  return switchTo(model);
}

$("settings").onsubmit = (event) => { event.preventDefault(); write(); };
$("stop").onclick = () => worker?.postMessage({ chore: "stop" });
$("folder").onclick = () => { $("folder").value = ""; }; // or the same folder, mended, would be no change
$("folder").onchange = () => {
  const files = [...$("folder").files];
  if (files.length) own({ name: files[0].webkitRelativePath?.split("/")[0] || "your files", files });
};
$("from-address").onsubmit = (event) => {
  event.preventDefault();
  const address = $("address").value.trim();
  if (!address) return;
  if (!URL.canParse(address, location.href)) return fail(new Error(`${address} is no address`), () => $("from-address").requestSubmit());
  own({ name: address, address: new URL(address, location.href).href });
};
for (const input of document.querySelectorAll("input[name=device]")) input.onchange = () => source && switchTo({ ...source });

async function begin() {
  const index = "models/index.json";
  try {
    const found = await fetch(index).catch((error) => { throw new Error(`${index}: ${error.message}`); });
    if (!found.ok) throw new Error(`${index}: the server says ${found.status} ${found.statusText}`);
    models = (await found.json()).map((model) => ({ ...model, address: new URL(model.address, location.href).href }));
    if (!models.length) throw new Error(`${index} names no model`);
  } catch (error) {
    return fail(error, begin);
  }
  $("placements").append(...models.map((model, i) => choice(model, i === 0)));
  await open(models[0]);
}

await begin();
try {
  const { reason } = await ask("gpu");
  $("gpu-reason").textContent = reason ? `(WebGPU: ${reason})` : "(WebGPU)";
  document.querySelector("input[value=gpu]").disabled = reason !== undefined;
} catch (error) {
  $("gpu-reason").textContent = `(WebGPU: ${error.message})`;
}
