// The report's script: sorts and filters the table of versions, compares two of them, and follows the pointer over
// the curves. All text goes into the page as text (textContent): nothing that a store holds becomes markup.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const versions = data.versions;
  const $ = (id) => document.getElementById(id);
  const MOST = 200; // lines of one kind in a comparison

  document.documentElement.classList.add("scripted");

  // --- elements and numbers ---

  function make(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined));
    return made;
  }

  const isNumber = (value) => typeof value === "number";
  const counted = (amount, one, many) => `${amount.toLocaleString("en")} ${amount === 1 ? one : many ?? one + "s"}`;

  // As `render.number` of the package does.
  function number(value) {
    if (!isNumber(value)) return String(value);
    if (Number.isInteger(value)) return Math.abs(value) < 1e12 ? String(value) : value.toExponential(4);
    const magnitude = Math.abs(value);
    if (magnitude < 1e-3 || magnitude >= 1e7) return value.toExponential(3);
    return value.toFixed(magnitude < 10 ? 4 : magnitude < 100 ? 3 : magnitude < 1000 ? 2 : 1);
  }

  function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let power = 0;
    while (bytes >= 999.5 * 1000 ** power && power < units.length - 1) power += 1;
    const scaled = bytes / 1000 ** power;
    return `${power === 0 || scaled >= 99.95 ? scaled.toFixed(0) : scaled.toFixed(1)} ${units[power]}`;
  }

  // Names come from a store: "__proto__" is one like any other where an object has no prototype.
  const plainFacts = data.facts.map((each) => {
    const told = Object.create(null);
    for (const [name, value] of Object.entries(each)) told[name] = { key: value, text: data.values[value] };
    return told;
  });
  const NONE = Object.create(null);
  const facts = (place) => (place === null || place === undefined ? NONE : plainFacts[place]);

  // --- the table: sorting, filtering, columns ---

  const rows = versions.map((_, place) => $(`v${place}`));
  const table = rows.length ? rows[0].closest("table") : null;
  const heads = table ? [...table.querySelectorAll("thead th")].slice(1) : [];
  let order = { head: heads.find((each) => each.dataset.key === "created"), down: true };

  const runOrder = new Map(data.runs.map((run, place) => [run, place]));
  function sortValue(version, place, head) {
    switch (head.dataset.key) {
      case "metric": return version.metrics[head.dataset.metric];
      case "name": return runOrder.get(version.run) * 1e9 + version.number;
      case "created": return place;
      case "notes": return [...version.aliases, ...version.words].join(" ") || undefined;
      default: return version[head.dataset.key];
    }
  }

  // What has no value, or none that can be ordered, comes last whichever way is sorted.
  function sortRows() {
    const { head, down } = order;
    const keyed = versions.map((version, place) => ({ place, value: sortValue(version, place, head) }));
    const isThere = (value) => value !== undefined && value !== null && value !== "nan";
    const plain = (value) => (value === "inf" ? Infinity : value === "-inf" ? -Infinity : value);
    keyed.sort((one, other) => {
      if (!isThere(one.value) || !isThere(other.value)) return isThere(other.value) - isThere(one.value) || other.place - one.place;
      const [a, b] = [plain(one.value), plain(other.value)];
      const first = isNumber(a) && isNumber(b) ? (a > b) - (a < b) : String(a).localeCompare(String(b));
      return (down ? -first : first) || other.place - one.place;
    });
    $("rows").append(...keyed.map(({ place }) => rows[place]));
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  function sortBy(head) {
    // Numbers are asked for from the largest, names from the first.
    const down = order.head === head ? !order.down : !["name", "id", "notes"].includes(head.dataset.key);
    order = { head, down };
    sortRows();
  }

  const FIELDS = {
    id: (each) => each.id, run: (each) => each.run, number: (each) => each.number, epoch: (each) => each.epoch,
    step: (each) => each.step, framework: (each) => each.framework, created: (each) => each.created,
    bytes: (each) => each.bytes, stored: (each) => each.stored, alias: (each) => each.aliases.join(" "),
    flags: (each) => each.marks.join(" "), pruned: (each) => String(each.pruned.some(([what]) => what === "weights")),
  };

  // A field, a metric, or a hyperparameter by its path or an end that only one has: as `mvc log --where` finds it.
  function valueOf(version, name) {
    if (Object.hasOwn(FIELDS, name)) return FIELDS[name](version) ?? undefined;
    if (Object.hasOwn(version.metrics, name)) return version.metrics[name];
    const known = facts(version.hyperparameters);
    const ends = Object.hasOwn(known, name) ? [name] : Object.keys(known).filter((each) => each.endsWith(`.${name}`));
    return ends.length === 1 ? known[ends[0]].text : undefined;
  }

  const numeric = (value) => (isNumber(value) ? value : /^[-+]?(\d|\.\d|inf|nan)/i.test(value) ? Number(String(value).replace(/^([-+]?)inf$/i, "$1Infinity")) : NaN);

  function holds(value, sign, wanted) {
    if (value === undefined) return false;
    const text = String(value).toLowerCase();
    const other = wanted.toLowerCase();
    if (sign === "~") return text.includes(other);
    const [a, b] = [numeric(value), numeric(wanted)];
    const numbers = !Number.isNaN(a) && !Number.isNaN(b);
    if (sign === "=" || sign === "==") return numbers && a === b || text === other;
    if (sign === "!=") return !(numbers && a === b || text === other);
    if (!numbers && (isNumber(value) || !Number.isNaN(b))) return false; // NaN is neither more nor less
    const [left, right] = numbers ? [a, b] : [text, other];
    return sign === "<" ? left < right : sign === "<=" ? left <= right : sign === ">" ? left > right : left >= right;
  }

  function parsed(text) {
    const words = text.match(/(?:[^\s"]|"[^"]*"?)+/g) ?? [];
    return words.map((word) => {
      const turned = word.length > 1 && word.startsWith("-");
      const plain = (turned ? word.slice(1) : word).replaceAll('"', "");
      const found = plain.match(/^([^<>=!~]+)(<=|>=|!=|==|=|<|>|~)(.+)$/);
      if (!found) return { turned, word: plain.toLowerCase() };
      return { turned, name: found[1], sign: found[2], wanted: found[3] };
    });
  }

  const hay = versions.map((each) => [
    each.name, each.id, each.framework, ...each.aliases, ...each.words, ...each.notes.map(([text]) => text),
    ...Object.entries(facts(each.hyperparameters)).map(([name, value]) => `${name}=${value.text}`),
  ].join("\n").toLowerCase());

  function filterRows() {
    const conditions = parsed($("filter").value);
    const run = $("run").value;
    const unknown = conditions.filter((each) => each.name && versions.every((version) => valueOf(version, each.name) === undefined));
    const seen = new Set();
    let shown = 0;
    versions.forEach((version, place) => {
      const fits = (run === "" || version.run === run) && conditions.every((each) =>
        each.turned !== (each.name ? holds(valueOf(version, each.name), each.sign, each.wanted) : hay[place].includes(each.word)));
      rows[place].hidden = !fits;
      if (fits) {
        shown += 1;
        seen.add(runOrder.get(version.run));
      }
    });
    $("shown").textContent = unknown.length
      ? `No version has ${unknown.map((each) => each.name).join(", ")}.`
      : shown === versions.length ? `${counted(shown, "version")}` : `${shown.toLocaleString("en")} of ${counted(versions.length, "version")}`;
    for (const each of document.querySelectorAll("#curves [data-run]")) {
      each.classList.toggle("off", !seen.has(Number(each.dataset.run)));
    }
  }

  function showColumn(at, on) {
    heads[at].hidden = !on;
    for (const row of rows) row.cells[at + 1].hidden = !on;
  }

  // --- choosing ---

  let chosen = [null, null]; // places of A and B

  const ends = new Map();
  versions.forEach((each, place) => {
    ends.set(each.name, place);
    for (const alias of each.aliases) ends.set(alias, place);
  });

  function find(text) {
    if (ends.has(text)) return ends.get(text);
    if (text === "latest") return versions.length - 1;
    const fits = text.length >= 4 ? versions.flatMap((each, place) => (each.id.startsWith(text) ? [place] : [])) : [];
    return fits.length === 1 ? fits[0] : null;
  }

  const nameOf = (place) => (place === null ? "" : versions[place].name);

  function address() {
    const [a, b] = chosen.map((place) => encodeURIComponent(nameOf(place)));
    return a && b ? `#diff=${a}..${b}` : a || b ? `#show=${a || b}` : "#versions";
  }

  function choose(places, { keep = true } = {}) {
    chosen = places;
    rows.forEach((row, place) => {
      row.querySelector("input").checked = places.includes(place);
      row.classList.toggle("picked", places.includes(place));
    });
    $("side-a").value = nameOf(places[0]);
    $("side-b").value = nameOf(places[1]);
    for (const id of ["side-a", "side-b"]) told($(id), "");
    if (keep) history.replaceState(null, "", address());
    showChosen();
    compare();
  }

  function tick(place, on) {
    let left = chosen.filter((each) => each !== null && each !== place);
    if (on) left = [...left.slice(-1), place].sort((a, b) => a - b); // a is the older one
    choose([left[0] ?? null, left[1] ?? null]);
  }

  function showChosen() {
    const bar = $("chosen");
    const places = chosen.filter((each) => each !== null);
    bar.hidden = places.length === 0;
    const go = make("button", { type: "button", class: "main" }, places.length === 2 ? "Compare" : "Show");
    go.addEventListener("click", () => jump());
    const clear = make("button", { type: "button", class: "quiet" }, "Clear");
    clear.addEventListener("click", () => choose([null, null]));
    const what = places.map((place, at) => [at ? " and " : "", make("b", {}, nameOf(place))]);
    const more = places.length === 1 ? make("span", { class: "dim" }, " – choose another to compare") : null;
    bar.replaceChildren(make("span", {}, what, more), go, clear);
  }

  function jump() {
    $("compare").scrollIntoView();
    const head = $("compare-head");
    head.tabIndex = -1;
    head.focus({ preventScroll: true });
  }

  function told(field, trouble) {
    field.setCustomValidity(trouble);
    field.title = trouble;
    if (trouble) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }

  function typed(side) {
    const field = $(side ? "side-b" : "side-a");
    const text = field.value.trim();
    const place = text === "" ? null : find(text);
    if (text !== "" && place === null) {
      told(field, `no version here is called ${text}`);
      field.reportValidity();
      return;
    }
    const places = [...chosen];
    places[side] = place;
    choose(places);
  }

  function followAddress() {
    const [kind, rest] = [location.hash.split("=", 1)[0], location.hash.split("=").slice(1).join("=")];
    if (kind !== "#show" && kind !== "#diff") return;
    const names = (kind === "#diff" ? rest.split("..") : [rest]).map((each) => {
      try {
        return find(decodeURIComponent(each));
      } catch {
        return null; // not a well-formed address
      }
    });
    choose([names[0] ?? null, names[1] ?? null], { keep: false });
    jump();
  }

  // --- comparing ---

  function changes(a, b, same = (x, y) => x === y) {
    return [...new Set([...Object.keys(a), ...Object.keys(b)])].map((name) => {
      const [has, had] = [Object.hasOwn(b, name), Object.hasOwn(a, name)];
      const kind = !had ? "added" : !has ? "removed" : same(a[name], b[name]) ? "same" : "changed";
      return { name, kind, a: a[name], b: b[name] };
    });
  }

  const SIGNS = { added: "+", removed: "−", changed: "~", same: "=" };
  const WORDS = { added: "only in B", removed: "only in A", changed: "changed", same: "the same" };

  const sign = (kind) => make("td", { class: `sign ${kind}`, title: WORDS[kind] }, SIGNS[kind], make("span", { class: "unseen" }, ` ${WORDS[kind]}`));

  function grid(titles, lines, { numbers = false, caption } = {}) {
    const shown = lines.slice(0, MOST);
    const head = make("tr", {}, titles.map((each) => make("th", { scope: "col", class: numbers && each.length ? "right" : null }, each || make("span", { class: "unseen" }, "How it differs"))));
    if (numbers) head.children[1]?.classList.remove("right");
    const made = make("table", {}, make("caption", { class: "unseen" }, caption), make("thead", {}, head), make("tbody", {}, shown));
    const more = lines.length > shown.length ? make("p", { class: "dim" }, `… and ${(lines.length - shown.length).toLocaleString("en")} more`) : null;
    return [make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, made), more];
  }

  function part(title, told, inside, open = true) {
    return make("details", { open, class: "part", "data-part": title.toLowerCase() },
      make("summary", {}, make("h3", {}, title), " ", make("span", { class: "dim" }, told)), inside);
  }

  const differ = (amount) => (amount === 0 ? "the same" : counted(amount, "difference"));

  function factsPart(title, a, b, both, caption) {
    if (!both) {
      const lines = Object.entries(a).map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "value" }, value.text)));
      return lines.length ? part(title, counted(lines.length, "value"), grid(["Name", "Value"], lines, { caption }), title !== "Environment") : part(title, "not known", []);
    }
    const every = changes(a, b, (x, y) => x.key === y.key);
    const apart = every.filter((each) => each.kind !== "same");
    const lines = ($("all").checked ? every : apart).map((each) => make("tr", { class: each.kind }, sign(each.kind),
      make("th", { scope: "row" }, each.name), make("td", { class: "value" }, each.a?.text ?? ""), make("td", { class: "value" }, each.b?.text ?? "")));
    const known = every.length > 0;
    return part(title, known ? differ(apart.length) : "not known", lines.length ? grid(["", "Name", "A", "B"], lines, { caption }) : [], apart.length > 0 || $("all").checked);
  }

  function metricsPart(a, b) {
    const every = b ? changes(a.metrics, b.metrics) : changes(a.metrics, a.metrics);
    if (!every.length) return part("Metrics", "none", []);
    const show = (version, each, value) => {
      const best = version.best.includes(each.name);
      return make("td", { class: "right" }, best ? make("b", { class: "best", title: "the best of the store" }, `★ ${number(value)}`) : value === undefined ? "" : number(value));
    };
    const lines = every.map((each) => {
      const cells = [make("th", { scope: "row" }, each.name), show(a, each, each.a)];
      if (!b) return make("tr", {}, cells);
      const both = isNumber(each.a) && isNumber(each.b);
      const step = both ? each.b - each.a : 0;
      return make("tr", { class: each.kind }, sign(each.kind), cells, show(b, each, each.b),
        make("td", { class: "right dim" }, !both ? "" : each.kind === "same" ? "=" : `${step > 0 ? "+" : ""}${number(step)}`));
    });
    const told = b ? differ(every.filter((each) => each.kind !== "same").length) : counted(every.length, "metric");
    return part("Metrics", told, grid(b ? ["", "Metric", "A", "B", "B − A"] : ["Metric", "Value"], lines, { numbers: true, caption: "Metrics" }));
  }

  const extent = (print) => (print.files ? counted(print.files, "file") : print.coverage) + (print.bytes ? `, ${size(print.bytes)}` : "");

  function filesApart(a, b) {
    if (a === null || b === null || a === undefined || b === undefined) return null;
    const [before, after] = [data.files[a], data.files[b]];
    return before === null || after === null ? null : changes(before, after).filter((each) => each.kind !== "same");
  }

  function dataPart(a, b) {
    const names = [...new Set([...Object.keys(a.data), ...Object.keys(b ? b.data : {})])];
    if (!names.length) return part("Data", "not known", []);
    let amount = 0;
    const inside = names.map((name) => {
      const [mine, theirs] = [a.data[name], b?.data[name]].map((each) => each && { ...data.fingerprints[each[0]], listing: each[1] });
      const line = (text, ...more) => make("div", { class: "source" }, make("p", {}, make("b", {}, name), `: ${text}`), more);
      if (!b) {
        return line(extent(mine), make("p", { class: "dim" }, [mine.how && `found by ${mine.how}`, mine.digest && `digest ${mine.digest}`].filter(Boolean).join(" · ")),
          mine.problems.map((each) => make("p", { class: "removed" }, each)));
      }
      if (!mine || !theirs) {
        amount += 1;
        return line(`only in ${mine ? "A" : "B"} (${extent(mine ?? theirs)})`);
      }
      if (mine.digest === null || theirs.digest === null || mine.scheme !== theirs.scheme) return line(`cannot be compared (${extent(mine)} → ${extent(theirs)})`);
      if (mine.digest === theirs.digest) return line(`the same (${extent(mine)})`);
      amount += 1;
      const apart = filesApart(mine.listing, theirs.listing);
      const head = `changed (${extent(mine)} → ${extent(theirs)})`;
      if (apart === null) return line(head, make("p", { class: "dim" }, `Which files differ is not told here: mvc diff ${a.name} ${b.name}`));
      if (!apart.length) return line(head, make("p", { class: "dim" }, "No file differs: the samples chosen from them, or their order, do."));
      const lines = apart.map((each) => make("tr", { class: each.kind }, sign(each.kind), make("th", { scope: "row" }, each.name)));
      const words = ["changed", "added", "removed"].map((kind) => [apart.filter((each) => each.kind === kind).length, kind]).filter(([count]) => count);
      return line(`${head}: ${words.map(([count, kind]) => `${count.toLocaleString("en")} ${kind}`).join(", ")}`, grid(["", "File"], lines, { caption: `Files of ${name}` }));
    });
    return part("Data", b ? differ(amount) : counted(names.length, "source"), inside);
  }

  function tensorsOf(version) {
    const [form, ids] = data.weights[version.weights];
    const told = Object.create(null);
    data.forms[form].forEach(([name, shape], at) => { told[name] = { id: ids[at], shape }; });
    return told;
  }

  // Pairs of names with the same tensor, which only one name of each side has: as `mvc diff` finds them.
  function renamedPairs(gone, come) {
    const counts = (list, of) => list.reduce((known, each) => known.set(of(each), (known.get(of(each)) ?? 0) + 1), new Map());
    const [before, after] = [counts(gone, (each) => each.a.id), counts(come, (each) => each.b.id)];
    return gone.flatMap((old) => {
      const fits = before.get(old.a.id) === 1 && after.get(old.a.id) === 1;
      const found = fits ? come.find((each) => each.b.id === old.a.id) : undefined;
      return found ? [[old, found]] : [];
    });
  }

  function weightsPart(a, b) {
    const about = `${counted(a.tensors, "tensor")}, ${size(a.bytes)}`;
    const missing = [a, b].filter((each) => each && (each.weights === null || each.weights === undefined));
    const why = { pruned: "its weights were pruned", damaged: "its list of tensors cannot be read", "too many": "there are too many tensors for one page" };
    if (!b) {
      const known = missing.length ? [] : Object.entries(tensorsOf(a)).map(([name, each]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, each.shape)));
      return part("Weights", about, [make("p", { class: "dim" }, `digest ${a.digest}`), known.length ? grid(["Tensor", "Form"], known, { caption: "Tensors" }) : []], false);
    }
    if (a.digest === b.digest) return part("Weights", "the same, bit for bit", []);
    const frameworks = a.framework !== b.framework ? make("p", { class: "dim" }, `Of different frameworks (${a.framework}, ${b.framework}): tensors are compared by their names there.`) : null;
    if (missing.length) return part("Weights", "different", [frameworks, make("p", {}, `Tensor by tensor it is not told here: of ${missing.map((each) => `${each.name} ${why[each.why] ?? "nothing is known"}`).join(", of ")}.`)]);
    const every = changes(tensorsOf(a), tensorsOf(b), (x, y) => x.id === y.id);
    const renamed = renamedPairs(every.filter((each) => each.kind === "removed"), every.filter((each) => each.kind === "added"));
    const paired = new Set(renamed.flat());
    const apart = every.filter((each) => each.kind !== "same" && !paired.has(each));
    const count = (kind) => apart.filter((each) => each.kind === kind).length;
    const told = [`${counted(count("changed"), "tensor")} changed`, `${every.filter((each) => each.kind === "same").length.toLocaleString("en")} unchanged`];
    for (const [amount, word] of [[renamed.length, "renamed"], [count("added"), "added"], [count("removed"), "removed"]]) {
      if (amount) told.push(`${amount.toLocaleString("en")} ${word}`);
    }
    const shape = (each) => (each.a && each.b && each.a.shape !== each.b.shape ? `${each.a.shape} → ${each.b.shape}` : (each.b ?? each.a).shape);
    const lines = [
      ...apart.map((each) => make("tr", { class: each.kind }, sign(each.kind), make("th", { scope: "row" }, each.name), make("td", {}, shape(each)))),
      ...renamed.map(([old, now]) => make("tr", {}, make("td", { class: "sign", title: "renamed" }, "→"), make("th", { scope: "row" }, `${old.name} → ${now.name}`), make("td", {}, now.b.shape))),
    ];
    return part("Weights", told.join(", "), [frameworks, lines.length ? grid(["", "Tensor", "Form"], lines, { caption: "Tensors" }) : []], lines.length <= 40);
  }

  function card(version, side) {
    const line = (name, value) => (value ? [make("dt", {}, name), make("dd", {}, value)] : []);
    const place = [version.epoch !== null && `epoch ${version.epoch}`, version.step !== null && `step ${version.step}`].filter(Boolean).join(", ");
    return make("article", { class: "card" },
      make("h3", {}, side ? make("span", { class: "side" }, side) : null, version.name, " ", version.aliases.map((each) => make("span", { class: "badge" }, each))),
      make("dl", {},
        line("id", make("code", {}, version.id)), line("made", `${version.created}, ${version.framework}`), line("after", place),
        line("from", version.parents.map(([name, how]) => `${name} (${how})`).join(", ")),
        line("marks", version.marks.join(", ")), line("pruned", version.pruned.map(([what, when, policy]) => `${what}, ${when}, by ${policy}`).join("; ")),
        version.evaluations.flatMap(([kind, when, metrics]) => line(kind, `${metrics} (${when})`)),
        version.notes.flatMap(([text, when, who]) => line("note", `${text} (${when}, ${who})`)),
        line("trouble", version.trouble && `the record cannot be read: ${version.trouble}`)));
  }

  function compare() {
    const [a, b] = chosen.filter((each) => each !== null).map((place) => versions[place]);
    const target = $("compared");
    if (!a) {
      target.replaceChildren(make("p", { class: "dim" }, "Choose one version to see everything of it, two to see what differs: in the table, in the curves, or here by name."));
      return;
    }
    const both = b !== undefined;
    const pair = (key) => [facts(a[key]), both ? facts(b[key]) : {}, both];
    target.replaceChildren(
      make("div", { class: "cards" }, card(a, both ? "A" : ""), both ? card(b, "B") : null),
      metricsPart(a, b), factsPart("Hyperparameters", ...pair("hyperparameters"), "Hyperparameters"), dataPart(a, b),
      factsPart("Code", ...pair("code"), "Code"), factsPart("Environment", ...pair("environment"), "Environment"), weightsPart(a, b));
  }

  // --- curves ---

  function drawing(svg) {
    const [xLow, xHigh, left, right] = svg.dataset.x.split(" ").map(Number);
    const [yLow, yHigh, bottom, top] = svg.dataset.y.split(" ").map(Number);
    const log = svg.dataset.log !== undefined ? Math.log10 : (value) => value;
    const share = (value, low, high) => (high > low ? (value - low) / (high - low) : 0.5);
    const points = versions.flatMap((version, place) => {
      const value = version.metrics[svg.dataset.metric];
      if (!isNumber(value)) return [];
      return [{
        place, value, x: left + (right - left) * share(version[svg.dataset.axis] ?? 0, xLow, xHigh),
        y: bottom + (top - bottom) * share(log(value), log(yLow), log(yHigh)),
      }];
    });
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    mark.setAttribute("r", "5");
    mark.setAttribute("class", "mark");
    mark.style.display = "none";
    svg.append(mark);

    function nearest(event) {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      let best = null;
      for (const each of points) {
        if (rows[each.place].hidden) continue;
        const apart = Math.hypot(each.x - x, each.y - y);
        if (apart < 40 && (best === null || apart < best.apart)) best = { ...each, apart };
      }
      return best;
    }

    svg.addEventListener("pointermove", (event) => {
      const best = nearest(event);
      const tip = $("tip");
      tip.hidden = best === null;
      mark.style.display = best === null ? "none" : "";
      if (best === null) return;
      mark.setAttribute("cx", best.x);
      mark.setAttribute("cy", best.y);
      const version = versions[best.place];
      tip.replaceChildren(make("b", {}, version.name), make("br"), `${svg.dataset.metric} ${number(best.value)}`, make("br"),
        make("span", { class: "dim" }, `${svg.dataset.axis} ${version[svg.dataset.axis]} · click to show`));
      tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
    });
    svg.addEventListener("pointerleave", () => {
      $("tip").hidden = true;
      mark.style.display = "none";
    });
    svg.addEventListener("click", (event) => {
      const best = nearest(event);
      if (best !== null) location.hash = `#show=${encodeURIComponent(nameOf(best.place))}`;
    });
  }

  function highlight(button) {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    const picked = new Set([...document.querySelectorAll('.legend [aria-pressed="true"]')].map((each) => each.dataset.run));
    for (const each of document.querySelectorAll("#curves svg [data-run]")) {
      each.classList.toggle("faint", picked.size > 0 && !picked.has(each.dataset.run));
    }
  }

  // --- light and dark ---

  function theme() {
    const button = $("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
    const say = () => {
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Show it ${dark() ? "light" : "dark"}`);
    };
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = dark() ? "light" : "dark";
      say();
    });
    system.addEventListener("change", say);
    say();
  }

  // --- all together ---

  theme();
  if (!table) return;
  for (const head of heads) head.querySelector("button").addEventListener("click", () => sortBy(head));
  for (const run of data.runs) $("run").append(make("option", { value: run }, run));
  $("filter").addEventListener("input", filterRows);
  $("run").addEventListener("change", filterRows);
  $("columns").addEventListener("change", (event) => showColumn(Number(event.target.dataset.column), event.target.checked));
  $("rows").addEventListener("change", (event) => tick(rows.indexOf(event.target.closest("tr")), event.target.checked));
  $("names").append(...[...ends.keys()].map((value) => make("option", { value })));
  $("side-a").addEventListener("change", () => typed(0));
  $("side-b").addEventListener("change", () => typed(1));
  $("swap").addEventListener("click", () => choose([chosen[1], chosen[0]]));
  $("all").addEventListener("change", compare);
  for (const svg of document.querySelectorAll("#curves svg[data-metric]")) drawing(svg);
  for (const button of document.querySelectorAll(".legend button")) button.addEventListener("click", () => highlight(button));
  $("lineage").addEventListener("click", (event) => {
    const dot = event.target.closest("[data-version]");
    if (dot) location.hash = `#show=${encodeURIComponent(dot.dataset.version)}`;
  });
  addEventListener("hashchange", followAddress);
  filterRows();
  showChosen();
  compare();
  followAddress();
})();
