// Wires the page: map, search, colours, the song that is shown, and the factors.

const N_MATCHES = 30;
const GREY = "--dot";
let colouring = null;
let standsOut = null; // the class of the legend that was chosen
let matches = null; // what the search has found, as a set

const card = new SongCard((song) => show(song, { aloud: true }));
const map = new SongMap(at("map"), at("tip"), at("map-said"), (song) => show(song, { aloud: true }));

function show(song, how) {
  map.choose(song, card.show(song, how));
  at("chosen").lastChild.textContent = songs.title[song];
}

function colourMap() {
  const { class_of: classOf, is_scale: isScale } = colouring;
  const colourOf = (song) => (classOf[song] < 0 ? GREY : `--${isScale ? "step" : "class"}${classOf[song]}`);
  const only = matches || standsOut !== null
    ? (song) => (!matches || matches.has(song)) && (standsOut === null || classOf[song] === standsOut)
    : null;
  map.colour(colourOf, only);
}

function colourBy(chosen) {
  colouring = chosen;
  standsOut = null;
  const counts = new Map();
  chosen.class_of.forEach((one) => counts.set(one, (counts.get(one) ?? 0) + 1));
  const entry = (name, one) => {
    const item = document.createElement("li");
    const button = element("button", "", { type: "button", "aria-pressed": "false" });
    const spot = document.createElement("i");
    spot.style.background = `var(${one < 0 ? GREY : `--${chosen.is_scale ? "step" : "class"}${one}`})`;
    button.append(spot, element("span", `${name} (${number(counts.get(one) ?? 0)})`));
    button.addEventListener("click", () => {
      standsOut = standsOut === one ? null : one;
      for (const other of at("legend").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button && standsOut !== null));
      colourMap();
    });
    item.append(button);
    return item;
  };
  const entries = chosen.classes.map(entry);
  if (counts.get(-1)) entries.push(entry({ tag: "other tags, or none", artist: "other artists", popularity: "no listeners" }[chosen.name] ?? "others", -1));
  at("legend").replaceChildren(...entries);
  colourMap();
}

function offerColours() {
  data.colourings.forEach((one, row) => {
    const label = element("label", one.name);
    const input = element("input", "", { type: "radio", name: "colour", value: one.name });
    input.checked = row === 0;
    input.addEventListener("change", () => colourBy(one));
    label.prepend(input);
    at("colours").append(label);
  });
  colourBy(data.colourings[0]);
}

function search(text) {
  const found = songsLike(text);
  matches = text.trim() ? new Set(found) : null;
  at("found").textContent = !matches ? "" : found.length ? `${number(found.length)} ${found.length === 1 ? "song" : "songs"}${found.length > N_MATCHES ? `, the first ${N_MATCHES} are listed` : ""}` : "No song is called so.";
  at("matches").replaceChildren(...found.slice(0, N_MATCHES).map((song) => {
    const item = document.createElement("li");
    item.append(pickOf(song, (picked) => show(picked, { aloud: true })));
    return item;
  }));
  colourMap();
  return found;
}

function showArtist(artist) {
  at("wanted").value = artist;
  search(artist);
  at("map-title").scrollIntoView({ block: "start" });
}

function tell() {
  const drawn = about.n_songs + about.n_unusable < about.n_audible ? `${number(about.n_songs)} of ${number(about.n_audible)} songs with audio, drawn with seed ${about.seed}` : `${number(about.n_songs)} songs`;
  at("lead").textContent = `Version ${about.version}, encoder ${about.encoder}: ${drawn}, ${number(about.n_held_out)} of them held out.`;
  at("map-true").textContent = `t-SNE of predicted usage patterns, seed ${about.seed}: two dimensions keep ${Math.round(about.kept_neighbours * 100)} % of a song’s ten nearest. What lies far apart on the map may be nearer than it looks.`;
  const { training, held_out: heldOut } = about.n_shared;
  const shared = [[training, "training songs"], [heldOut, "held-out songs"]].filter(([mean]) => mean !== null).map(([mean, who]) => `${mean} for ${who}`).join(", ");
  const listed = about.n_queries < about.n_songs ? ` Neighbours are listed for ${number(about.n_queries)} of them: those asked for, the most played, and a draw that prefers held-out songs.` : "";
  const unusable = about.n_unusable ? ` ${number(about.n_unusable)} clips could not be used.` : "";
  at("foot").textContent = `Neighbours are compared by the cosine of predicted usage patterns, among the ${number(about.n_played)} songs that were played and can be heard; of ${about.n_nearest}, both lists share on average ${shared || "none"}; by chance it would be ${about.n_by_chance}.${listed}${unusable}`;
}

function offerStarts() {
  const listed = data.queries;
  const heldOut = listed.filter((song) => songs.part[song] === 1);
  const most = listed.reduce((best, song) => (songs.listeners[song] > songs.listeners[best] ? song : best), listed[0]);
  const one = (among) => among[Math.floor(Math.random() * among.length)];
  at("any").addEventListener("click", () => show(one(listed), { aloud: true }));
  at("any-held-out").hidden = !heldOut.length;
  at("any-held-out").addEventListener("click", () => show(one(heldOut), { aloud: true }));
  at("most-played").addEventListener("click", () => show(most, { aloud: true }));
  show(heldOut[0] ?? most, { aloud: false });
}

at("wanted").addEventListener("input", (event) => search(event.target.value));
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const [first] = search(at("wanted").value);
  if (first !== undefined) show(first, { aloud: true });
});
at("closer").addEventListener("click", () => map.zoomBy(STEP));
at("farther").addEventListener("click", () => map.zoomBy(1 / STEP));
at("whole").addEventListener("click", () => map.whole());
tell();
offerColours();
offerStarts();
showFactors(showArtist);
