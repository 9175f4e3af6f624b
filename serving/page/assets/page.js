// Wires the page: a clip, a song or a listener is asked about; the newest question is the one shown.

const N_SONGS = 12;
const N_LISTENERS = 10;
const LOOK_AGAIN_MS = 5000;
const at = (id) => document.getElementById(id);
let about = { models: [], max_body_bytes: Infinity, max_clip_seconds: Infinity };
let turn = 0;
let later = 0;

const player = new Player(at("own"), (song) => troubled("This song can’t be played.", `“${titleOf(song)}” is not here any more, or this browser doesn’t know its format.`));
const map = new SongMap(at("map"), at("tip"), at("map-said"), (song) => askAboutSong(song));
const canRank = () => about.models.includes("recommend");

async function start() {
  clearTimeout(later);
  try {
    about = await asked("/v1/about");
  } catch (error) {
    at("key").hidden = error.kind !== "no_key";
    at("state").textContent = error.kind === "no_key" ? "" : error.message;
    if (error.kind === "no_key" && hasKey()) troubled("This key doesn’t open the server.", error.message);
    return;
  }
  at("key").hidden = true;
  at("trouble").hidden = true;
  at("state").textContent = stateOf(about);
  at("version").textContent = about.bundle ? `Version ${about.bundle.slice(0, 16)}` : "";
  at("listener").hidden = !canRank();
  if (!about.bundle) later = setTimeout(start, LOOK_AGAIN_MS);
  else if (canRank()) await showMap();
}

function stateOf({ n_songs: nSongs, n_listeners: nListeners, bundle, is_stale: isStale }) {
  if (!bundle) return canRank() ? "Nothing has been published yet: run the pipeline first." : "There is no champion yet: run the pipeline first.";
  const songs = `${nSongs.toLocaleString("en")} songs`;
  if (nListeners === null) return `Hears clips, and finds the nearest of ${songs}.`;
  const stale = isStale ? " The store doesn’t answer just now; this is what was last read." : "";
  return `${songs}, ${nListeners.toLocaleString("en")} listeners.${stale}`;
}

async function showMap() {
  try {
    const { ids, titles, artists, x, y, has_clip: hasClip, n_songs: nSongs } = await asked("/v1/map");
    const songs = ids.map((id, i) => ({ song_id: id, title: titles[i], artist: artists[i], x: x[i], y: y[i], has_clip: hasClip[i] }));
    document.querySelector(".stage").classList.add("with-map");
    at("map-part").hidden = false;
    const part = songs.length < nSongs ? `${songs.length.toLocaleString("en")} of ${nSongs.toLocaleString("en")} songs are shown. ` : "";
    at("map-text").textContent = `${part}Songs lie near one another where the same listeners would play them. Choose a dot to ask about it.`;
    map.show(songs);
  } catch (error) {
    if (error.kind !== "no_champion") troubled("The map can’t be shown.", error.message);
  }
}

// Runs one question: says what is being done, shows trouble in words, and drops a late answer.
async function inTurn(saying, act) {
  turn += 1;
  const mine = turn;
  const isMine = () => mine === turn;
  at("trouble").hidden = true;
  at("status").textContent = saying;
  document.body.classList.add("hearing");
  at("answer").setAttribute("aria-busy", "true");
  try {
    await act(isMine);
    if (isMine()) at("status").textContent = "";
  } catch (error) {
    if (!isMine()) return;
    at("status").textContent = "";
    if (error.kind === "no_key") at("key").hidden = false;
    troubled(error instanceof Refused ? "That didn’t work." : "Something on this page went wrong.", error.message);
  } finally {
    if (isMine()) {
      document.body.classList.remove("hearing");
      at("answer").removeAttribute("aria-busy");
    }
  }
}

function troubled(what, sentence) {
  const text = sentence.charAt(0).toUpperCase() + sentence.slice(1).replace(/[^.!?]$/, "$&.");
  at("trouble").replaceChildren(element("strong", { textContent: what }), text);
  at("trouble").hidden = false;
  at("trouble").scrollIntoView({ block: "nearest" });
}

const waiting = () => {
  at("status").textContent = "The server is busy; asking again in a moment…";
};

function askAboutClip(file) {
  player.audio.pause();
  URL.revokeObjectURL(at("own").src);
  at("own").src = URL.createObjectURL(file);
  at("own").setAttribute("aria-label", `Your clip, ${file.name}`);
  at("own").hidden = false;
  at("hint").hidden = true;
  return inTurn(`Listening to “${file.name}”…`, async (isMine) => {
    const cut = { done: false };
    const { heard, audio } = await hear(file, cut);
    if (!isMine()) return;
    const songs = await named(heard.nearest, "score");
    const [place, answer] = canRank()
      ? await Promise.all([
        asked("/v1/map", { factors: heard.factors, bundle: heard.bundle }),
        predicted("listeners", { audio }, { k: N_LISTENERS }, waiting),
      ])
      : [null, null];
    if (!isMine()) return;
    const note = cut.done ? `The file is longer than this server hears at once, so its middle ${EXCERPT_SECONDS} seconds were heard.` : "";
    shown({ bundle: heard.bundle, title: `You dropped “${file.name}”`, note, heading: "It sounds like", songs, listeners: answer?.listeners ?? null, place });
  });
}

// Asks for a clip's factors and nearest songs; where the whole is too long, for those of its middle.
async function hear(file, cut) {
  const ask = async (blob) => {
    const audio = await base64Of(blob);
    return { audio, heard: await predicted("latent-factors", { audio }, { n_nearest: N_SONGS }, waiting) };
  };
  if (file.size * 4 / 3 < about.max_body_bytes - 1000) {
    try {
      return await ask(file);
    } catch (error) {
      if (error.kind !== "too_long" || about.max_clip_seconds < EXCERPT_SECONDS) throw error;
    }
  }
  cut.done = true;
  return ask(await middleOf(file));
}

function askAboutSong(song) {
  return inTurn(`Asking about “${titleOf(song)}”…`, async (isMine) => {
    const id = { song_id: song.song_id };
    const [similar, listening, [itself]] = await Promise.all([
      predicted("similar", id, { k: N_SONGS }, waiting),
      predicted("listeners", id, { k: N_LISTENERS }, waiting),
      named([id]),
    ]);
    const songs = await named(similar.songs, "score");
    if (!isMine()) return;
    shown({ bundle: similar.bundle, title: nameOf(itself), note: "", heading: "Songs like it", songs, listeners: listening.listeners, place: null, itself });
  });
}

function askAboutListener(userId) {
  at("user-id").value = userId;
  return inTurn(`Asking what ${userId} would like…`, async (isMine) => {
    const answer = await predicted("recommend", { user_id: userId }, { k: N_SONGS, n_because: 2 }, waiting);
    const songs = await named(answer.songs, "score");
    const reasons = await named(answer.songs.flatMap((song) => song.because));
    if (!isMine()) return;
    const titles = new Map(reasons.map((song) => [song.song_id, titleOf(song)]));
    answer.songs.forEach((song, i) => {
      const own = song.because.map((one) => `“${titles.get(one.song_id)}”`).join(" and ");
      songs[i].more = own && `because of ${own}`;
    });
    const note = answer.fallback
      ? `Nobody here is called “${userId}”. These are the songs that most listeners would play.`
      : "Songs that this listener hasn’t played, each with the played ones that it is nearest to.";
    shown({ bundle: answer.bundle, title: `For ${userId}`, note, heading: "Recommended", songs, listeners: null, place: null, isCosine: false });
  });
}

// Returns songs with what they are called, where they lie, and their score.
async function named(found, score) {
  const ids = [...new Set(found.map((one) => one.song_id))];
  if (!ids.length) return [];
  const query = ids.map((id) => `id=${encodeURIComponent(id)}`).join("&");
  const { songs } = await asked(`/v1/songs?${query}`);
  const byId = new Map(songs.map((song) => [song.song_id, song]));
  return found.map((one) => ({ ...byId.get(one.song_id), score: one[score] }));
}

function shown({ bundle, title, note, heading, songs, listeners, place, itself = null, isCosine = true }) {
  at("answer-title").textContent = title;
  at("answer-note").textContent = note;
  at("songs-title").textContent = heading;
  const percent = (value) => scoreOf(`${Math.round(value * 100)} %`, value, 1);
  // Predicted preferences have no upper end: the best one shown fills its bar, if it is above 1.
  const most = (all) => Math.max(1, ...all.map((one) => one.score));
  const plain = (full) => (value) => scoreOf(value.toFixed(2), value, full);
  const ofSong = isCosine ? percent : plain(most(songs));
  const ofListener = plain(most(listeners ?? []));
  const rows = songs.map((song) => songRow(song, ofSong(song.score), song.more, player, canRank() ? askAboutSong : null));
  at("songs").replaceChildren(...(rows.length ? rows : [emptyRow("No song is left to show.")]));
  at("listeners-part").hidden = listeners === null;
  document.querySelector(".lists").classList.toggle("alone", listeners === null);
  const people = (listeners ?? []).map((one) => listenerRow(one.user_id, ofListener(one.score), askAboutListener));
  at("listeners").replaceChildren(...(people.length ? people : [emptyRow("No listener is left to show.")]));
  at("songs").classList.toggle("playable", songs.some((song) => song.has_clip));
  map.mark(songs, place);
  if (itself && itself.x !== null) map.point(itself);
  // A new version has taken over since the page was opened: its songs, and its map, are others.
  if (bundle !== about.bundle) start();
  at("answer").hidden = false;
  at("answer").focus({ preventScroll: true });
  const { top } = at("answer").getBoundingClientRect();
  if (top > innerHeight - 160 || top < 0) at("answer").scrollIntoView({ block: "start" });
}

at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  if (file) askAboutClip(file);
  at("file").value = "";
});
// What the browser can't play may still be music to the server; only the player goes.
at("own").addEventListener("error", () => {
  at("own").hidden = true;
});
at("listener").addEventListener("submit", (event) => {
  event.preventDefault();
  askAboutListener(at("user-id").value.trim());
});
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key-text").value.trim());
  at("key-text").value = "";
  start();
});
// The whole page takes a drop: a file that falls beside the record must not replace the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("record").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("record").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("record").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) askAboutClip(file);
});
start();
