// A visitor of the page of examples/web: chooses, types, reads. What was seen goes to the test.
const LIMIT = 280_000;
const began = Date.now();
const frame = document.getElementById("page");
const page = () => frame.contentDocument;
const $ = (id) => page().getElementById(id);
const state = () => page()?.body?.dataset.state;
const seen = { texts: {}, drawn: {}, pictures: {}, names: {}, status: {} };

function until(ready, what) {
  return new Promise((yes, no) => {
    const look = () => {
      if (ready()) yes();
      else if (Date.now() - began > LIMIT) no(new Error(`waited for ${what}: ${state()}, ${$("status")?.textContent}, ${$("error")?.textContent}`));
      else setTimeout(look, 20);
    };
    look();
  });
}

const reached = (wanted) => until(() => state() === wanted || state() === "failed", wanted);
const set = (id, value) => { $(id).value = value; };

async function choose(name) {
  page().querySelector(`input[name=model][value="${name}"]`).click();
  await reached("written");
}

function give(files) {
  const held = new frame.contentWindow.DataTransfer();
  for (const [name, parts] of Object.entries(files)) held.items.add(new frame.contentWindow.File([parts], name));
  $("folder").files = held.files;
  $("folder").dispatchEvent(new frame.contentWindow.Event("change"));
}

const reason = () => ($("error").hidden ? null : $("reason").textContent);

async function refused(files) {
  give(files);
  await reached("failed");
  return reason();
}

// The server fails at the next request for `path`.
const fail = (path) => fetch("/fail", { method: "POST", body: path });

async function visit() {
  const { prompt, tokens, temperature, seed, gpu } = await (await fetch("/wishes")).json();
  // It is the library that does not come at first.
  await until(() => state() === "failed", "the page without its library");
  seen.first = reason();
  $("again").click();
  await until(() => state() === "ready" || state() === "failed", "the page");
  seen.reason = await until(() => !$("gpu-reason").textContent.includes("looking"), "WebGPU").then(() => $("gpu-reason").textContent);
  seen.gpu = !page().querySelector("input[value=gpu]").disabled;
  if (gpu && !seen.gpu) return;
  set("prompt", prompt);
  set("tokens", tokens);
  set("temperature", 0);
  $("go").click();
  await reached("written");
  if (gpu) {
    page().querySelector("input[value=gpu]").click();
    await reached("written");
    const name = page().querySelector("input[name=model]:checked").value;
    seen.texts[name] = $("text").textContent;
    seen.status[name] = $("status").textContent;
    seen.error = $("reason").textContent;
    return;
  }
  const models = [...page().querySelectorAll("input[name=model]")].map((input) => input.value);
  // The first one is chosen already: choosing it again would change nothing.
  const round = [...models.slice(1), models[0]];
  for (const name of round) {
    await choose(name);
    seen.texts[name] = $("text").textContent;
    seen.names[name] = $("name").textContent;
    seen.pictures[name] = [...page().querySelectorAll("#pictures figure")].map((figure) => figure.outerHTML);
    seen.status[name] = $("status").textContent;
  }
  set("temperature", temperature);
  set("seed", seed);
  for (const name of round) {
    await choose(name);
    seen.drawn[name] = $("text").textContent;
  }
  set("temperature", 0);
  await fail(`/models/${models[1]}/model.safetensors`);
  page().querySelector(`input[name=model][value="${models[1]}"]`).click();
  await reached("failed");
  seen.broken = reason();
  await choose(models[1]);
  seen.mended = $("text").textContent;
  set("address", "http://[");
  $("from-address").requestSubmit();
  seen.address = reason();
  const file = async (name) => (await fetch(`/models/${models[0]}/${name}`)).arrayBuffer();
  const names = ["config.json", "tokenizer.json", "model.safetensors"];
  const whole = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await file(name)])));
  seen.cut = await refused({ ...whole, "model.safetensors": whole["model.safetensors"].slice(0, 5000) });
  const { "tokenizer.json": _, ...without } = whole;
  seen.without = await refused(without);
  const config = JSON.parse(new TextDecoder().decode(whole["config.json"]));
  seen.field = await refused({ ...whole, "config.json": JSON.stringify({ ...config, norm_dropout: 1 }) });
  seen.shape = await refused({ ...whole, "config.json": JSON.stringify({ ...config, intermediate_size: config.intermediate_size + 8 }) });
  give(whole);
  await reached("written");
  seen.own = $("text").textContent;
  set("tokens", 100000);
  $("go").click();
  await until(() => $("written").textContent.length > 4 || state() === "failed", "some text");
  $("stop").click();
  await reached("written");
  seen.stopped = $("status").textContent;
}

try {
  await visit();
} catch (error) {
  seen.failure = error.message;
}
await fetch("/result", { method: "POST", body: JSON.stringify(seen) });
