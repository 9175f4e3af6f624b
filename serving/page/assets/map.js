// The map: a dot for each song; the songs of the answer are numbered, a dropped clip is a ring.

const PICK_PIXELS = 16;
const MARGIN_PIXELS = 26;
const STEEPNESS = 2;
const CLIP_NAME = "your clip";

class SongMap {
  // `picked(song)` is called when a song is clicked, or chosen with Enter.
  constructor(canvas, tip, said, picked) {
    Object.assign(this, { canvas, tip, said, picked });
    Object.assign(this, { songs: [], near: [], clip: null, focus: null });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointermove", (event) => this.point(this.songAt(event)));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("click", (event) => {
      const song = this.songAt(event);
      if (song) this.picked(song);
    });
    canvas.addEventListener("keydown", (event) => this.pressed(event));
  }

  show(songs) {
    this.songs = songs;
    this.draw();
  }

  // Marks the answer's songs, and the clip {x, y} that was asked about, or null.
  mark(near, clip) {
    this.near = near.filter((song) => song.x !== null);
    this.clip = clip;
    this.point(null);
  }

  point(song) {
    if (song === this.focus && song !== null) return;
    this.focus = song;
    this.tip.hidden = song === null;
    if (song) this.tip.textContent = nameOf(song);
    this.draw();
    if (song) this.putTip(song);
  }

  pressed(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" && this.focus) this.picked(this.focus);
    if (!step) return;
    event.preventDefault();
    const song = this.focus ? this.nextTo(this.focus, step) : (this.near[0] ?? this.songs[0]);
    if (!song) return;
    this.point(song);
    this.said.textContent = nameOf(song);
  }

  // The nearest song in a direction; what lies aside of it counts as farther away.
  nextTo(from, [right, down]) {
    const [x, y] = this.pixel(from);
    let best = null;
    let least = Infinity;
    for (const song of this.all()) {
      const [dx, dy] = [this.pixel(song)[0] - x, this.pixel(song)[1] - y];
      const ahead = dx * right + dy * down;
      const aside = Math.abs(dx * down) + Math.abs(dy * right);
      if (ahead > 0.5 && ahead + STEEPNESS * aside < least) {
        least = ahead + STEEPNESS * aside;
        best = song;
      }
    }
    return best;
  }

  all() {
    return [...this.songs, ...this.near];
  }

  songAt(event) {
    const box = this.canvas.getBoundingClientRect();
    let best = null;
    let least = PICK_PIXELS;
    for (const song of this.all()) {
      const [x, y] = this.pixel(song);
      const distance = Math.hypot(x - event.clientX + box.left, y - event.clientY + box.top);
      if (distance < least) [least, best] = [distance, song];
    }
    return best;
  }

  measure() {
    const placed = [...this.all(), ...(this.clip ? [this.clip] : [])];
    const range = (values) => values.reduce(
      ([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    const [left, right] = range(placed.map((one) => one.x));
    const [low, high] = range(placed.map((one) => one.y));
    const { clientWidth, clientHeight } = this.canvas;
    this.pixel = ({ x, y }) => [
      MARGIN_PIXELS + ((x - left) / (right - left || 1)) * (clientWidth - 2 * MARGIN_PIXELS),
      clientHeight - MARGIN_PIXELS - ((y - low) / (high - low || 1)) * (clientHeight - 2 * MARGIN_PIXELS),
    ];
  }

  draw() {
    const { canvas, near, clip, focus } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !this.all().length) return;
    const scale = devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    this.measure();
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const dot = (one, radius, fill) => {
      pen.beginPath();
      pen.arc(...this.pixel(one), radius, 0, 2 * Math.PI);
      pen.fillStyle = fill;
      pen.fill();
    };
    const small = this.songs.length > 1500 ? 1.8 : this.songs.length > 200 ? 2.6 : 4;
    this.songs.forEach((song) => dot(song, small, colour("--dot")));
    pen.textBaseline = "middle";
    if (clip) this.drawRing(pen, this.pixel(clip), colour("--ink"), colour("--sheet"));
    pen.font = "600 11px system-ui, sans-serif";
    pen.textAlign = "center";
    [...near.entries()].reverse().forEach(([at, song]) => {
      dot(song, 9.5, colour("--sheet"));
      dot(song, 8.5, colour("--warm"));
      pen.fillStyle = colour("--on-warm");
      pen.fillText(at + 1, this.pixel(song)[0], this.pixel(song)[1] + 0.5);
    });
    if (clip) this.nameClip(pen, this.pixel(clip), colour("--ink"), colour("--sheet"), width);
    if (focus) {
      pen.beginPath();
      pen.arc(...this.pixel(focus), 11, 0, 2 * Math.PI);
      pen.strokeStyle = colour("--ink");
      pen.lineWidth = 2;
      pen.stroke();
    }
  }

  drawRing(pen, [x, y], ink, sheet) {
    for (const [radius, line, stroke] of [[13, 6, sheet], [13, 3, ink], [4, 3, ink]]) {
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.lineWidth = line;
      pen.strokeStyle = stroke;
      pen.stroke();
    }
  }

  // Writes beside the ring, above or below it: where the fewest of the answer's songs are hidden.
  nameClip(pen, [x, y], ink, sheet, width) {
    pen.font = "700 13px system-ui, sans-serif";
    pen.textAlign = "center";
    const half = pen.measureText(CLIP_NAME).width / 2;
    const hidden = ([left, top]) => {
      const outside = left - half < 0 || left + half > width || top < 12;
      const covers = ([nearX, nearY]) => Math.abs(nearX - left) < half + 9 && Math.abs(nearY - top) < 17;
      return outside ? Infinity : this.near.filter((song) => covers(this.pixel(song))).length;
    };
    const places = [[x + half + 20, y], [x - half - 20, y], [x, y - 25], [x, y + 25]];
    const [left, top] = places.reduce((best, place) => (hidden(place) < hidden(best) ? place : best));
    pen.lineWidth = 4;
    pen.strokeStyle = sheet;
    pen.strokeText(CLIP_NAME, left, top);
    pen.fillStyle = ink;
    pen.fillText(CLIP_NAME, left, top);
  }

  putTip(song) {
    const [x, y] = this.pixel(song);
    const { offsetWidth, offsetHeight } = this.tip;
    const left = Math.max(0, Math.min(x - offsetWidth / 2, this.canvas.clientWidth - offsetWidth));
    const top = y > offsetHeight + 16 ? y - offsetHeight - 14 : y + 14;
    this.tip.style.transform = `translate(${left}px, ${top}px)`;
  }
}
