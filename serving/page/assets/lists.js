// Builds what is shown of songs and listeners. Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";
const PLAY_SHAPE = "M4 2l10 6-10 6z";
const PAUSE_SHAPE = "M3 2h4v12H3zM9 2h4v12H9z";

function titleOf(song) {
  return song.title || song.song_id;
}

function nameOf(song) {
  return song.artist ? `${titleOf(song)} – ${song.artist}` : titleOf(song);
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A row of a song; `more` is a further line, such as why it is recommended; `chosen` may be null.
function songRow(song, score, more, player, chosen) {
  const name = element(chosen ? "button" : "strong", { textContent: titleOf(song) });
  name.addEventListener("click", () => chosen?.(song));
  const lines = [song.artist, more].filter(Boolean).map((text) => element("span", { textContent: text }));
  // Without a clip the button's place stays empty, so that titles stand below one another.
  const play = song.has_clip ? playButton(song, player) : element("span");
  return element("li", { className: "song" }, play, element("div", { className: "name" }, name, ...lines), score);
}

function listenerRow(id, score, chosen) {
  const name = element("button", { type: "button", textContent: id });
  name.addEventListener("click", () => chosen(id));
  return element("li", {}, element("div", { className: "name" }, name), score);
}

function emptyRow(text) {
  return element("li", { className: "none", textContent: text });
}

// A number with a bar; `full` is the value of a full bar.
function scoreOf(text, value, full) {
  const meter = element("meter", { min: 0, max: full, value: Math.max(0, Math.min(full, value)) });
  meter.setAttribute("aria-hidden", "true");
  return element("div", { className: "score" }, text, meter);
}

function playButton(song, player) {
  const shape = document.createElementNS(SVG, "path");
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 16 16");
  drawing.setAttribute("aria-hidden", "true");
  drawing.append(shape);
  const button = element("button", { type: "button", className: "play" }, drawing);
  button.setAttribute("aria-label", `Play ${nameOf(song)}`);
  const show = () => {
    const plays = player.plays(song.song_id);
    button.setAttribute("aria-pressed", String(plays));
    shape.setAttribute("d", plays ? PAUSE_SHAPE : PLAY_SHAPE);
  };
  player.watch(button, show);
  button.addEventListener("click", () => player.toggle(song));
  show();
  return button;
}

// Plays one catalogue clip at a time, and stops the dropped one meanwhile.
class Player {
  constructor(own, failed) {
    Object.assign(this, { own, failed, audio: new Audio(), songId: null, watchers: new Map() });
    for (const event of ["play", "pause", "ended"]) {
      this.audio.addEventListener(event, () => this.told());
      own.addEventListener(event, () => this.told());
    }
    own.addEventListener("play", () => this.audio.pause());
  }

  plays(songId) {
    return this.songId === songId && !this.audio.paused;
  }

  watch(button, show) {
    this.watchers.set(button, show);
  }

  told() {
    document.body.classList.toggle("playing", !this.audio.paused || !this.own.paused);
    for (const [button, show] of this.watchers) {
      if (button.isConnected) show();
      else this.watchers.delete(button);
    }
  }

  async toggle(song) {
    if (this.plays(song.song_id)) {
      this.audio.pause();
      return;
    }
    this.own.pause();
    this.songId = song.song_id;
    try {
      const address = `/v1/clips/${encodeURIComponent(song.song_id)}`;
      URL.revokeObjectURL(this.audio.src);
      // An audio element can't show a key, so the clip is then fetched whole.
      this.audio.src = hasKey() ? await this.fetchedWhole(address) : address;
      await this.audio.play();
    } catch (error) {
      if (error.name !== "AbortError") this.failed(song);
    }
  }

  async fetchedWhole(address) {
    const answer = await fetched(address);
    if (!answer.ok) throw await refusalOf(answer);
    return URL.createObjectURL(await answer.blob());
  }
}
