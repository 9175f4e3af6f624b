// The data that lies in the page, by song; a song is its row.

const data = JSON.parse(document.getElementById("data").textContent);
const { songs, about } = data;
const PARTS = ["a training song", "held out: neither factors nor network were fitted on it",
  "nobody has played it"];
const rowOfQuery = new Map(data.queries.map((song, row) => [song, row]));
const at = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const artistOf = (song) => songs.artists[songs.artist[song]];
const nameOf = (song) => (artistOf(song) ? `${songs.title[song]} — ${artistOf(song)}` : songs.title[song]);
const tagsOf = (song) => songs.tags[song].map((tag) => songs.tag_names[tag]);

// An element with text in it, which is never taken for anything but text, in its own direction.
function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  made.dir = "auto";
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A button that shows a song.
function pickOf(song, picked) {
  const button = element("button", "", { type: "button", class: "pick" });
  button.append(element("strong", songs.title[song]), element("span", artistOf(song)));
  button.addEventListener("click", () => picked(song));
  return button;
}

// The songs whose title, artist or tag holds a text; those that are so called come first.
const searched = songs.title.map((title, song) => `${title}\n${artistOf(song)}\n${tagsOf(song).join("\n")}`.toLowerCase());
function songsLike(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const rank = (song) => (songs.title[song].toLowerCase().startsWith(wanted) ? 0 : songs.title[song].toLowerCase().includes(wanted) ? 1 : 2);
  return searched.flatMap((names, song) => (names.includes(wanted) ? [song] : []))
    .sort((one, other) => rank(one) - rank(other) || songs.listeners[other] - songs.listeners[one]);
}
