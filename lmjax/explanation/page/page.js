"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { width, height } = data.image;
  const count = data.segments.shares.length;
  const scale = Math.max(1, Math.min(4, Math.round(1100 / width)));
  const state = { method: data.methods[0].name, removal: data.removals[0].name, target: 0,
                  step: 0, active: null, held: null, partners: false };

  // Text, numbers, elements

  function make(tag, options = {}, ...inside) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "on") for (const [event, call] of Object.entries(value)) element.addEventListener(event, call);
      else if (value !== null && value !== false) element.setAttribute(name, value);
    }
    element.append(...inside.filter((each) => each !== null && each !== undefined));
    return element;
  }

  function number(value, sign = false) {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    const shown = size >= 1e5 || size < 1e-4 ? size.toExponential(2) : String(Number(size.toPrecision(3)));
    return (value < 0 ? "\u2212" : sign ? "+" : "") + shown;
  }

  function percent(share) {
    if (share > 0 && share < 0.001) return "< 0.1%";
    if (share >= 0.9995) return "100%";
    return `${(100 * share).toFixed(share < 0.0995 || share >= 0.995 ? 1 : 0)}%`;
  }

  const className = (index) => data.classes[index];
  const removalOf = (name) => data.removals.find((each) => each.name === name);

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    const view = new DataView(buffer);
    return Uint16Array.from({ length: buffer.byteLength / 2 }, (_, i) => view.getUint16(2 * i, true));
  }

  async function picture(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    return image;
  }

  // Everything that is packed is unpacked once

  const labels = await unpack(data.segments.labels);
  for (const map of data.maps) if (map.levels) map.levels = await unpack(map.levels);
  const whole = await picture(data.image.picture);
  const grey = await picture(data.image.grey);
  const parts = new Map();
  for (const removal of data.removals) {
    const shown = data.shown[removal.name];
    removal.base = shown.base ? await picture(shown.base) : null;
    for (const part of [...Object.values(shown.hidden), ...Object.values(shown.shown).flatMap(Object.values)]) {
      parts.set(part, await picture(part.picture));
    }
  }
  const lists = Array.from({ length: count }, () => []);
  labels.forEach((label, place) => lists[label].push(place));
  const outlines = outlinesOf();

  // What is chosen

  function currentMap(method = state.method, removal = state.removal) {
    const of = (name) => data.maps.findIndex((each) => each.method === method && each.removal === name && each.class === state.target);
    const place = of(removal) >= 0 ? of(removal) : of("whole");
    return place < 0 ? null : { ...data.maps[place], place };
  }

  function orderOf(map) {
    return map.scores.map((_, i) => i).sort((a, b) => map.scores[b] - map.scores[a] || a - b);
  }

  function visibleAt(map, step) {
    const threshold = map.thresholds[step];
    if (map.levels) return Uint8Array.from(map.levels, (level) => level >= threshold);
    const shown = new Uint8Array(count);
    for (const segment of orderOf(map).slice(0, threshold)) shown[segment] = 1;
    return Uint8Array.from(labels, (label) => shown[label]);
  }

  function valueAt(map, place) {
    if (map.scores) return map.scores[labels[place]];
    const [low, high] = map.range;
    return low + (high - low) * map.levels[place] / 65535;
  }

  function active() {
    return state.active !== null ? state.active : state.held;
  }

  function pairOf(values, a, b) {
    if (a === b) return null;
    const [i, j] = a < b ? [a, b] : [b, a];
    return values[i * count - i * (i + 1) / 2 + j - i - 1];
  }

  // Drawing

  function outlinesOf() {
    const all = new Path2D(), own = Array.from({ length: count }, () => new Path2D());
    const edge = (path, x1, y1, x2, y2) => { path.moveTo(x1, y1); path.lineTo(x2, y2); };
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      const here = labels[y * width + x];
      const right = x + 1 < width ? labels[y * width + x + 1] : -1;
      const below = y + 1 < height ? labels[(y + 1) * width + x] : -1;
      const left = x ? labels[y * width + x - 1] : -1, above = y ? labels[(y - 1) * width + x] : -1;
      if (right !== here) { edge(own[here], x + 1, y, x + 1, y + 1); if (right >= 0) edge(all, x + 1, y, x + 1, y + 1); }
      if (below !== here) { edge(own[here], x, y + 1, x + 1, y + 1); if (below >= 0) edge(all, x, y + 1, x + 1, y + 1); }
      if (left !== here) edge(own[here], x, y, x, y + 1);
      if (above !== here) edge(own[here], x, y, x + 1, y);
    }
    return { all, own };
  }

  function layer(paint) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    paint(pixels.data);
    context.putImageData(pixels, 0, 0);
    return canvas;
  }

  function rgb(hex) {
    return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  }

  const tables = { signed: data.colours.signed.map(rgb), unsigned: data.colours.unsigned.map(rgb) };

  function colourOf(value, limit, signed) {
    const share = signed ? (value / limit + 1) / 2 : value / limit;
    return tables[signed ? "signed" : "unsigned"][Math.max(0, Math.min(255, Math.floor(share * 256)))];
  }

  function stretched(id) {
    const canvas = $(id);
    [canvas.width, canvas.height] = [width * scale, height * scale];
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    return context;
  }

  function coloured(map) {
    const partners = state.partners && map.scores && map.partners.pairs;
    if (!partners) return { of: (place) => valueAt(map, place), limit: map.limit, signed: map.signed, shown: visibleAt(map, state.step) };
    const from = active(), limit = Math.max(...map.partners.pairs.map(Math.abs)) || 1;
    const of = (place) => from === null || labels[place] === from ? 0 : pairOf(map.partners.pairs, from, labels[place]);
    return { of, limit, signed: true, shown: new Uint8Array(labels.length).fill(1) };
  }

  function drawMap(map) {
    const context = stretched("map");
    context.drawImage(grey, 0, 0);
    if (map && !map.reason) {
      const heat = coloured(map), shown = heat.shown, alpha = Math.round(255 * data.colours.opacity);
      context.imageSmoothingEnabled = !map.scores;
      context.drawImage(layer((pixels) => {
        for (let place = 0; place < labels.length; place++) {
          const colour = shown[place] ? colourOf(heat.of(place), heat.limit, heat.signed) : [70, 72, 78];
          pixels.set(colour, 4 * place);
          pixels[4 * place + 3] = shown[place] ? alpha : 205;
        }
      }), 0, 0);
    } else {
      context.fillStyle = "#d9d9d9e6";
      context.fillRect(0, 0, width, height);
    }
    if (!map || !map.levels) stroke(context, outlines.all, "#ffffff66", 0.8);
    const from = active();
    if (map && map.scores && from !== null) {
      stroke(context, outlines.own[from], "#000000", 5);
      stroke(context, outlines.own[from], "#ffe600", 2.5);
    } else if (map && map.levels && from !== null) cross(context, from);
  }

  function stroke(context, path, colour, pixels) {
    context.strokeStyle = colour;
    context.lineWidth = pixels * Math.max(1, width / 350) * (350 / width > 1 ? width / 350 : 1);
    context.lineCap = "square";
    context.stroke(path);
  }

  function cross(context, place) {
    const [x, y, arm] = [place % width + 0.5, Math.floor(place / width) + 0.5, width / 28];
    const path = new Path2D();
    path.moveTo(x - arm, y); path.lineTo(x + arm, y); path.moveTo(x, y - arm); path.lineTo(x, y + arm);
    stroke(context, path, "#000000", 4);
    stroke(context, path, "#ffe600", 1.8);
  }

  function checks() {
    const side = Math.max(1, Math.floor(height / 28));
    return layer((pixels) => {
      for (let place = 0; place < labels.length; place++) {
        const odd = (Math.floor(place / width / side) + Math.floor(place % width / side)) % 2;
        pixels.set(odd ? [204, 204, 204, 255] : [255, 255, 255, 255], 4 * place);
      }
    });
  }

  function wholePatches(visible, side) {
    const shown = visible.slice();
    for (let top = 0; top < height; top += side) for (let left = 0; left < width; left += side) {
      let every = 1;
      const rows = Math.min(side, height - top), columns = Math.min(side, width - left);
      for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) every &= visible[(top + y) * width + left + x];
      if (!every) for (let y = 0; y < rows; y++) shown.fill(0, (top + y) * width + left, (top + y) * width + left + columns);
    }
    return shown;
  }

  function drawSeen(visible, part, missing) {
    const shown = data.shown[state.removal], base = removalOf(state.removal).base;
    if (shown.patch) visible = wholePatches(visible, shown.patch);
    const context = stretched("seen");
    context.imageSmoothingEnabled = width >= 200;
    const kept = layer((pixels) => visible.forEach((each, place) => { pixels[4 * place + 3] = 255 * each; }));
    const over = kept.getContext("2d");
    over.globalCompositeOperation = "source-in";
    over.drawImage(whole, 0, 0);
    context.drawImage(base && !missing ? base : checks(), 0, 0, width, height);
    if (part && !part.over) context.drawImage(parts.get(part), part.x, part.y);
    context.drawImage(kept, 0, 0);
    if (part && part.over) context.drawImage(parts.get(part), part.x, part.y);
  }

  // Readings

  function answerList(answer) {
    const target = data.targets[state.target];
    const lines = answer.top.map(([index, share]) => [index, share]);
    if (!lines.some(([index]) => index === target)) lines.push([target, answer.of[state.target]]);
    return make("ul", { class: "answers" }, ...lines.map(([index, share]) => {
      const bar = make("i", {});
      bar.style.width = `${100 * share}%`;
      return make("li", { class: index === target ? "target" : null },
        make("span", { class: "name", title: className(index) }, className(index)),
        make("span", { class: "bar" }, bar), make("span", { class: "number" }, percent(share)));
    }));
  }

  function answerText(answer) {
    const [index, share] = answer.top[0], target = data.targets[state.target];
    const own = index === target ? "" : `; “${className(target)}” ${percent(answer.of[state.target])}`;
    return `“${className(index)}” ${percent(share)}${own}`;
  }

  function readSegment(map, segment) {
    const rank = orderOf(map).indexOf(segment) + 1;
    const size = map.errors && map.errors[segment];
    const error = map.errors ? make("small", {}, size ? ` ± ${number(size)} standard error` : " exact: every coalition was evaluated") : null;
    const found = [
      make("h2", {}, `Segment ${segment}`),
      make("p", { class: "quiet" }, `rank ${rank} of ${count}, ${percent(data.segments.shares[segment])} of the image`),
      map.reason ? make("p", {}, map.reason) : make("p", { class: "value", id: "value" }, number(map.scores[segment], map.signed), error),
      make("h3", {}, "Partners"), ...readPartners(map, segment),
    ];
    const answer = data.shown[state.removal].hiddenAnswers[segment];
    if (answer) found.push(make("h3", {}, "The network’s answer without it"), make("p", { id: "alone" }, answerText(answer)));
    return found;
  }

  function readPartners(map, segment) {
    const { pairs, errors, reason, index } = map.partners;
    if (!pairs) return [make("p", { class: "quiet" }, reason)];
    const others = lists.map((_, i) => i).filter((i) => i !== segment);
    others.sort((a, b) => Math.abs(pairOf(pairs, b, segment)) - Math.abs(pairOf(pairs, a, segment)));
    const list = make("ul", { class: "partners", id: "partners" }, ...others.slice(0, 3).map((other) => {
      const value = pairOf(pairs, segment, other);
      return make("li", {}, make("button", { type: "button", "data-key": `partner-${other}`, on: { click: () => hold(other) } }, `segment ${other}`), " ",
        make("span", { class: "number" }, `${number(value, true)} ± ${number(pairOf(errors, segment, other))}`),
        make("span", { class: "quiet" }, value > 0 ? " they need each other" : " one can stand in for the other"));
    }));
    return [list, make("p", { class: "quiet" }, `${index} interactions, from the variants that the method evaluated`)];
  }

  function readPixel(map, place) {
    const below = map.levels.filter((level) => level < map.levels[place]).length / map.levels.length;
    return [
      make("h2", {}, `Row ${Math.floor(place / width)}, column ${place % width}`),
      map.reason ? make("p", {}, map.reason) : make("p", { class: "value", id: "value" }, number(valueAt(map, place), map.signed)),
      make("p", { class: "quiet" }, `higher than in ${percent(below)} of the pixels`),
    ];
  }

  function readNothing(map) {
    const what = map && map.levels ? "pixel" : "segment";
    return [
      make("h2", {}, `No ${what} chosen`),
      make("p", {}, map && map.levels ? "Point at the map to read its value." :
        "Point at a segment of the map to see its effect, its partners, and the picture without it."),
      ...(map && map.notes ? map.notes.split("\n").map((line) => make("p", { class: "quiet" }, line)) : []),
      map ? make("p", { class: "quiet" }, `${map.variants.toLocaleString("en")} ${map.variants === 1 ? "variant was" : "variants were"} evaluated for this map.`) : null,
    ];
  }

  function describeStep(map) {
    const threshold = map.thresholds[state.step], last = map.thresholds.length - 1;
    const visible = visibleAt(map, state.step);
    const share = visible.reduce((sum, each) => sum + each, 0) / visible.length;
    if (state.step === 0) return "Nothing is shown.";
    if (state.step === last) return "The whole image is shown.";
    if (map.levels) {
      const value = map.range[0] + (map.range[1] - map.range[0]) * threshold / 65535;
      return `Pixels of ${number(value)} or more: ${percent(share)} of the image.`;
    }
    const lowest = map.scores[orderOf(map)[threshold - 1]];
    return `Segments of ${number(lowest)} or more: ${threshold} of ${count}, ${percent(share)} of the image.`;
  }

  // The parts of the page

  function showMap(map) {
    drawMap(map);
    const reason = map ? map.reason : data.absent[`${state.method}/${state.removal}`];
    $("map-reason").hidden = !reason;
    $("map-reason").textContent = reason || "";
    const title = data.methods.find((each) => each.name === state.method).title;
    const partners = map && state.partners && map.partners && map.partners.pairs;
    $("map-title").textContent = map && map.removal === "whole" ? `${title}, nothing removed` : `${title}, ${removalOf(state.removal).title}`;
    $("scale").hidden = !map || Boolean(map.reason);
    $("unit").textContent = !map ? "" : partners ? "interaction with the chosen segment: above 0 they need each other, below 0 one can stand in for the other" : map.unit;
    if (map && !map.reason) drawScale(map);
    $("map").setAttribute("aria-label", `${title}: ${map ? map.unit : reason}`);
  }

  function drawScale(map) {
    const { limit, signed } = coloured(map), context = $("scale-bar").getContext("2d");
    context.clearRect(0, 0, 256, 1);
    context.globalAlpha = data.colours.opacity;
    tables[signed ? "signed" : "unsigned"].forEach((colour, i) => {
      context.fillStyle = `rgb(${colour.join(",")})`;
      context.fillRect(i, 0, 1, 1);
    });
    $("scale-low").textContent = signed ? number(-limit) : "0";
    $("scale-high").textContent = number(limit, signed);
  }

  function showColouring(map) {
    const possible = map && map.scores && map.partners.pairs && !map.reason;
    const options = [["effect", "effects"], ["partners", "partners"]];
    choices("colouring", options.map(([name, title]) => ({ name, title, off: name === "partners" && !possible })),
      state.partners && possible ? "partners" : "effect", (name) => { state.partners = name === "partners"; show(); });
    $("colouring").hidden = !map || !map.scores;
  }

  function showSeen(map) {
    const shown = data.shown[state.removal], segment = active();
    let visible, part = null, missing = false, answer, title, note = `Removal: ${removalOf(state.removal).description}`;
    if (segment !== null && !(map && map.levels)) {
      visible = Uint8Array.from(labels, (label) => label !== segment);
      part = shown.hidden[segment];
      answer = shown.hiddenAnswers[segment];
      title = `Without segment ${segment}`;
      missing = !part && !shown.complete && !shown.hiddenAnswers.length;
    } else if (map) {
      visible = visibleAt(map, state.step);
      part = shown.shown[map.place][state.step];
      missing = !part && !shown.complete;
      answer = shown.shownAnswers[map.place][state.step];
      title = state.step === map.thresholds.length - 1 ? "The whole image" : state.step ? "Above the threshold" : "Nothing";
    } else {
      visible = new Uint8Array(labels.length).fill(1);
      title = "The whole image";
    }
    if (visible.every(Boolean)) missing = false;
    drawSeen(visible, part, missing);
    if (missing) note = "What was painted over hidden parts is kept for some steps only; move the threshold a little";
    else if (!shown.base && !visible.every(Boolean)) note += ". Checks: hidden, with nothing in place of it";
    $("seen-title").textContent = `${title}, as the network was shown it`;
    $("seen-note").textContent = note;
    $("seen").setAttribute("aria-label", `${title}, hidden parts by ${removalOf(state.removal).title}`);
    $("answer").replaceChildren(answer ? answerList(answer) : make("p", { class: "quiet" }, "The network was not asked about this picture."));
  }

  function showThreshold(map) {
    $("threshold-card").hidden = !map;
    if (!map) return;
    const slider = $("threshold"), text = describeStep(map), answers = data.shown[state.removal].shownAnswers[map.place];
    slider.max = map.thresholds.length - 1;
    slider.value = state.step;
    slider.setAttribute("aria-valuetext", text);
    $("threshold-text").textContent = text;
    const last = answers.length - 1, at = (i) => 100 * i / last, high = (answer) => 38 - 36 * answer.of[state.target];
    const line = answers.map((answer, i) => `${at(i).toFixed(2)},${high(answer).toFixed(2)}`).join(" ");
    const part = (tag, options) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(options)) element.setAttribute(name, value);
      return element;
    };
    const level = high(answers[last]);
    $("curve-svg").replaceChildren(
      part("line", { class: "axis", x1: 0, x2: 100, y1: 38, y2: 38 }), part("line", { class: "axis", x1: 0, x2: 100, y1: 2, y2: 2 }),
      part("line", { class: "whole", x1: 0, x2: 100, y1: level, y2: level }), part("polyline", { class: "line", points: line }),
      part("line", { class: "now", x1: at(state.step), x2: at(state.step), y1: 0, y2: 40 }));
    const name = className(data.targets[state.target]), now = answers[state.step].of[state.target];
    $("curve-text").textContent = `Probability of “${name}” as more is shown, from 0 to 100%: ${percent(now)} here, ${percent(answers[last].of[state.target])} of the whole image (dashed).`;
    $("curve-svg").setAttribute("aria-label", $("curve-text").textContent);
  }

  function showReadout(map) {
    const from = active();
    const found = from === null || !map ? readNothing(map) : map.scores ? readSegment(map, from) : readPixel(map, from);
    $("readout").replaceChildren(...found.filter(Boolean));
  }

  function showTable(map) {
    $("table-card").hidden = !map || !map.scores;
    if (!map || !map.scores || !$("table-card").open) return;
    const answers = data.shown[state.removal].hiddenAnswers;
    const heads = ["segment", "effect", "standard error", "share of the image", "answer without it"];
    const used = heads.map((_, i) => (i !== 2 || map.errors) && (i !== 4 || answers.length));
    const rows = orderOf(map).map((segment) => {
      const cells = [
        make("td", {}, make("button", { type: "button", "data-key": `row-${segment}`, on: { click: () => hold(segment) } }, String(segment))),
        make("td", { class: "number" }, number(map.scores[segment], map.signed)),
        make("td", { class: "number" }, map.errors ? number(map.errors[segment]) : ""),
        make("td", { class: "number" }, percent(data.segments.shares[segment])),
        make("td", {}, answers[segment] ? answerText(answers[segment]) : ""),
      ];
      return make("tr", { class: `row${segment === active() ? " active" : ""}` }, ...cells.filter((_, i) => used[i]));
    });
    const head = make("tr", {}, ...heads.filter((_, i) => used[i]).map((name, i) => make("th", { scope: "col", class: i && name !== heads[4] ? "number" : null }, name)));
    $("table").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }

  function choices(id, options, chosen, choose) {
    $(id).replaceChildren(...options.map(({ name, title, colour, off }) => {
      const swatch = colour ? make("i", { "aria-hidden": "true" }) : null;
      if (swatch) swatch.style.background = colour;
      const input = make("input", { type: "radio", name: id, value: name, "data-key": `${id}-${name}`, disabled: off ? "" : null, on: { change: () => choose(name) } });
      input.checked = name === chosen;
      return make("label", {}, input, make("span", {}, swatch, title));
    }));
  }

  function show() {
    const map = currentMap(), focused = document.activeElement.dataset.key;
    showColouring(map);
    showMap(map);
    showSeen(map);
    showThreshold(map);
    showReadout(map);
    showTable(map);
    if (focused && document.activeElement === document.body) {
      const again = document.querySelector(`[data-key="${focused}"]`) || $("readout");
      again.focus({ preventScroll: true });
    }
  }

  // What readers do

  function restart() {
    const map = currentMap();
    state.step = map ? map.thresholds.length - 1 : 0;
    state.active = state.held = null;
    show();
  }

  function choose(name, value) {
    const before = currentMap();
    state[name] = value;
    const after = currentMap();
    const alike = before && after && Boolean(before.scores) === Boolean(after.scores);
    const held = state.held, share = before ? state.step / (before.thresholds.length - 1) : 1;
    restart();
    if (!alike) return;
    state.held = held;
    state.step = Math.round(share * (after.thresholds.length - 1));
    show();
  }

  function hold(segment) {
    [state.held, state.active] = [segment, null];
    show();
  }

  function under(event) {
    const box = $("map").getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * width);
    const y = Math.floor((event.clientY - box.top) / box.height * height);
    if (x < 0 || y < 0 || x >= width || y >= height) return null;
    return y * width + x;
  }

  const chosenAt = (place) => { const map = currentMap(); return place === null ? null : map && map.levels ? place : labels[place]; };

  function point(place) {
    const found = chosenAt(place);
    if (found === state.active) return;
    state.active = found;
    show();
  }

  let cursor = Math.floor(height / 2) * width + Math.floor(width / 2);

  function walk(dx, dy) {
    const map = currentMap(), pixels = map && map.levels ? Math.max(1, Math.round(width / 56)) : 1;
    let [x, y] = [cursor % width, Math.floor(cursor / width)];
    const from = labels[cursor];
    do {
      x += dx * pixels;
      y += dy * pixels;
      if (x < 0 || y < 0 || x >= width || y >= height) return;
      cursor = y * width + x;
    } while (pixels === 1 && !(map && map.levels) && labels[cursor] === from);
    point(cursor);
  }

  function press(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (steps[event.key]) walk(...steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") toggle(cursor);
    else if (event.key === "Escape") { state.active = state.held = null; show(); }
    else return;
    event.preventDefault();
  }

  function toggle(place) {
    const found = chosenAt(place);
    state.held = found === state.held ? null : found;
    state.active = null;
    show();
  }

  $("map").addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") { const place = under(event); if (place !== null) cursor = place; point(place); } });
  $("map").addEventListener("pointerleave", () => point(null));
  $("map").addEventListener("click", (event) => { const place = under(event); if (place !== null) { cursor = place; toggle(place); } });
  $("map").addEventListener("keydown", press);
  $("map").addEventListener("focus", () => { if ($("map").matches(":focus-visible") && active() === null) point(cursor); });
  $("map").addEventListener("blur", () => point(null));
  $("threshold").addEventListener("input", (event) => { state.step = Number(event.target.value); state.active = state.held = null; show(); });
  $("table-card").addEventListener("toggle", show);

  // The first look

  $("title").textContent = `What does the network see in ${data.image.name}?`;
  const { name, probability, label } = data.prediction;
  const explained = data.targets.map((each) => `“${className(each)}”`);
  $("lede").append("It answers ", make("strong", {}, name), ` (${percent(probability)})`, label === null ? "" : `; the true class is ${label}`, ". ",
    explained.length === 1 ? `Explained: ${explained[0]}.` : `Explained: ${explained.slice(0, -1).join(", ")} and ${explained.at(-1)}.`);
  choices("methods", data.methods, state.method, (value) => choose("method", value));
  choices("removals", data.removals, state.removal, (value) => choose("removal", value));
  choices("classes", data.targets.map((each, i) => ({ name: i, title: className(each) })), 0, (value) => choose("target", value));
  $("classes-set").hidden = data.targets.length === 1;
  $("record").replaceChildren(...data.record.map(([what, value]) => make("tr", {}, make("th", { scope: "row" }, what), make("td", {}, make("code", {}, value)))));
  restart();
  document.documentElement.dataset.ready = "yes";
})();
