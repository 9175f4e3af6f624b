// The map: a dot for each song, moved and zoomed by pointer, touch and keyboard.

const PICK_PIXELS = 16;
const MARGIN_PIXELS = 22;
const STEEPNESS = 2;
const FARTHEST = 1;
const CLOSEST = 60;
const STEP = 1.5;
const CLICK_PIXELS = 6;
const FULL = 2 * Math.PI;

class SongMap {
  // `picked(song)` is called when a song is clicked, or chosen with Enter.
  constructor(canvas, tip, said, picked) {
    Object.assign(this, { canvas, tip, said, picked, focus: null, chosen: null, listed: [], only: null });
    Object.assign(this, { zoom: FARTHEST, middle: [0, 0], pointers: new Map(), colourOf: () => "--dot" });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointerdown", (event) => this.pressedDown(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerup", (event) => this.lifted(event));
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 200), this.pixelOf(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.keyed(event));
  }

  // Colours: `colourOf(song)` names a variable of the style; `only(song)` says who stands out.
  colour(colourOf, only) {
    Object.assign(this, { colourOf, only });
    this.draw();
  }

  choose(song, listed) {
    Object.assign(this, { chosen: song, listed });
    const [x, y] = this.pixel(song);
    const { clientWidth, clientHeight } = this.canvas;
    if (x < 0 || y < 0 || x > clientWidth || y > clientHeight) this.middle = this.placeOf(song);
    this.draw();
  }

  placeOf(song) {
    return [songs.x[song] / 10000, -songs.y[song] / 10000];
  }

  pixel(song, view = this.view()) {
    const [x, y] = this.placeOf(song);
    return [view.width / 2 + (x - this.middle[0]) * view.span, view.height / 2 + (y - this.middle[1]) * view.span];
  }

  // What all dots share. To ask the canvas for its size may lay out the page: once for all, not once a dot.
  view() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return { width, height, span: this.span(width, height) };
  }

  // Pixels for one unit, across and down: one scale, so that distances are true.
  span(width = this.canvas.clientWidth, height = this.canvas.clientHeight) {
    return (Math.max(40, Math.min(width, height) - 2 * MARGIN_PIXELS) / 2) * this.zoom;
  }

  pixelOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // Zooms so that what lies at a pixel stays there.
  zoomBy(factor, [x, y] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const before = this.span();
    this.zoom = Math.min(CLOSEST, Math.max(FARTHEST, this.zoom * factor));
    const after = this.span();
    const change = 1 / before - 1 / after;
    this.middle[0] += (x - this.canvas.clientWidth / 2) * change;
    this.middle[1] += (y - this.canvas.clientHeight / 2) * change;
    this.settle();
  }

  whole() {
    this.zoom = FARTHEST;
    this.settle();
  }

  settle() {
    const limit = 1.1 * (1 - FARTHEST / this.zoom);
    this.middle = this.middle.map((value) => Math.min(limit, Math.max(-limit, value)));
    this.canvas.classList.toggle("closer", this.zoom > FARTHEST);
    this.point(null);
    this.draw();
  }

  pressedDown(event) {
    this.pointers.set(event.pointerId, this.pixelOf(event));
    if (this.pointers.size === 1) this.way = 0;
    this.canvas.setPointerCapture(event.pointerId);
  }

  moved(event) {
    const now = this.pixelOf(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.point(this.songAt(now));
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    this.way += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (other) {
      const apart = (one) => Math.max(1, Math.hypot(one[0] - other[0], one[1] - other[1]));
      return this.zoomBy(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    }
    if (this.way < CLICK_PIXELS) return undefined;
    const span = this.span();
    this.middle = [this.middle[0] - (now[0] - before[0]) / span, this.middle[1] - (now[1] - before[1]) / span];
    return this.settle();
  }

  lifted(event) {
    const wasAlone = this.pointers.size === 1;
    if (!this.pointers.delete(event.pointerId) || !wasAlone || this.way >= CLICK_PIXELS) return;
    const song = this.songAt(this.pixelOf(event));
    if (song !== null) this.picked(song);
  }

  keyed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" && this.focus !== null) this.picked(this.focus);
    if (event.key === "+" || event.key === "=") this.zoomBy(STEP);
    if (event.key === "-") this.zoomBy(1 / STEP);
    if (event.key === "0") this.whole();
    if (!step) return;
    event.preventDefault();
    const song = this.focus === null ? (this.chosen ?? 0) : this.nextTo(this.focus, step);
    if (song === null) return;
    this.point(song);
    this.said.textContent = nameOf(song);
  }

  // The nearest song in a direction; what lies aside of it counts as farther away.
  nextTo(from, [right, down]) {
    const view = this.view();
    const [x, y] = this.pixel(from, view);
    let best = null;
    let least = Infinity;
    for (const song of songs.id.keys()) {
      const [otherX, otherY] = this.pixel(song, view);
      const ahead = (otherX - x) * right + (otherY - y) * down;
      const aside = Math.abs((otherX - x) * down) + Math.abs((otherY - y) * right);
      if (ahead > 0.05 && ahead + STEEPNESS * aside < least) [least, best] = [ahead + STEEPNESS * aside, song];
    }
    return best;
  }

  songAt([atX, atY]) {
    let best = null;
    let least = PICK_PIXELS;
    const view = this.view();
    for (const song of songs.id.keys()) {
      const [x, y] = this.pixel(song, view);
      const distance = Math.hypot(x - atX, y - atY);
      if (distance < least) [least, best] = [distance, song];
    }
    return best;
  }

  point(song) {
    if (song === this.focus) return;
    this.focus = song;
    this.tip.hidden = song === null;
    this.draw();
    if (song === null) return;
    this.tip.replaceChildren(element("bdi", nameOf(song)));
    const [x, y] = this.pixel(song);
    const { offsetWidth, offsetHeight } = this.tip;
    const left = Math.max(0, Math.min(x - offsetWidth / 2, this.canvas.clientWidth - offsetWidth));
    const top = y > offsetHeight + 16 ? y - offsetHeight - 14 : y + 14;
    this.tip.style.transform = `translate(${left}px, ${top}px)`;
  }

  // At most once a frame, however often it is asked.
  draw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.paint();
    });
  }

  paint() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const view = this.view();
    const [width, height] = [Math.trunc(view.width * scale), Math.trunc(view.height * scale)];
    // Even the same size given again takes the canvas new memory.
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const style = getComputedStyle(canvas);
    const colours = new Map();
    const colour = (name) => {
      if (!colours.has(name)) colours.set(name, style.getPropertyValue(name).trim());
      return colours.get(name);
    };
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, view.width + 1, view.height + 1);
    const circle = (song, radius) => {
      const [x, y] = this.pixel(song, view);
      pen.beginPath();
      pen.arc(x, y, radius, 0, FULL);
      return x > -radius && y > -radius && x < view.width + radius && y < view.height + radius;
    };
    const size = Math.min(9, (songs.id.length > 1500 ? 2.2 : songs.id.length > 400 ? 3.2 : 5) * this.zoom ** 0.35);
    const isBehind = (song) => (this.only ? !this.only(song) : this.colourOf(song) === "--dot");
    for (const behind of [true, false]) {
      for (const song of songs.id.keys()) {
        if (isBehind(song) !== behind) continue;
        pen.globalAlpha = this.only && behind ? 0.22 : 0.9;
        if (!circle(song, this.only && !behind ? size * 1.35 : size)) continue;
        pen.fillStyle = colour(this.colourOf(song));
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    const ring = (song, radius, line, name) => {
      circle(song, radius);
      pen.lineWidth = line;
      pen.strokeStyle = colour(name);
      pen.stroke();
    };
    this.listed.forEach((song) => ring(song, size + 2, 1.5, "--ink"));
    if (this.chosen !== null) {
      ring(this.chosen, size + 6, 6, "--sheet");
      ring(this.chosen, size + 6, 3.5, "--warm");
    }
    if (this.focus !== null) ring(this.focus, size + 4, 2, "--ink");
  }
}
