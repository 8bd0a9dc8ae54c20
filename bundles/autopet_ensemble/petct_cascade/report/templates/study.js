"use strict";
// The rotating projection can be held; then its first picture is shown. Who wants less motion begins with it.
{
  const rotation = document.getElementById("rotation"), still = document.getElementById("still");
  const pause = document.getElementById("pause");
  const hold = isHeld => {
    if (isHeld) {
      [still.width, still.height] = [rotation.naturalWidth, rotation.naturalHeight];
      still.getContext("2d").drawImage(rotation, 0, 0);
    }
    still.hidden = !isHeld;
    rotation.hidden = isHeld;
    pause.textContent = isHeld ? "Play" : "Pause";
  };
  pause.addEventListener("click", () => hold(still.hidden));
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    rotation.decode().then(() => hold(true), () => {});
  }
}

// The viewer and its volumes are loaded when somebody wants to look.
{
  const viewer = document.getElementById("viewer"), screen = document.getElementById("screen");
  const element = id => document.getElementById(id);
  const lesions = viewer ? JSON.parse(viewer.dataset.lesions) : {};
  let opened = null;

  function loadScript(source) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.addEventListener("load", resolve);
      script.addEventListener("error", () => reject(new Error(`${decodeURIComponent(source)} is missing beside this page.`)));
      document.head.append(script);
    });
  }

  // Colours of lesions 1 to `count`, all alike; 0 is transparent.
  function labels(count, colour) {
    const part = start => [0, ...Array(Math.max(count, 2)).fill(parseInt(colour.slice(start, start + 2), 16))];
    return {R: part(1), G: part(3), B: part(5), A: [0, ...Array(Math.max(count, 2)).fill(255)], I: part(1).map((_, index) => index)};
  }

  async function readVolume(name, base64) {
    const colours = JSON.parse(viewer.dataset.colours);
    const volume = await niivue.NVImage.loadFromBase64({base64, name: `${name}.nii.gz`, colormap: "gray"});
    if (name in lesions) volume.setColormapLabel(labels(Math.min(lesions[name], 4000), colours[name]));
    return volume;
  }

  // The axial plane stands beside the other two, or, where it is narrow, below them; those two have one scale. Planes and extents
  // are those of the voxels, which in an oblique study are not the world's.
  function arrange(nv) {
    const [width, depth, height] = nv.sceneExtentsMinMax(false)[2];
    const part = width / (width + depth);
    const side = screen.clientWidth < 640 ? 0 : .45, rest = 1 - side;
    const above = side ? 1 : height / (height + depth / part);
    nv.setCustomLayout([
      {sliceType: 0, position: side ? [0, 0, side, 1] : [0, above, 1, 1 - above]},
      {sliceType: 1, position: [side, 0, rest * part, above]},
      {sliceType: 2, position: [side + rest * part, 0, rest * (1 - part), above]},
    ]);
  }

  function zoomTo(nv) {
    const zoom = Number(element("zoom").value);
    const [low, high] = nv.sceneExtentsMinMax(false);
    const place = nv.frac2mm(nv.scene.crosshairPos);
    const pan = [0, 1, 2].map(axis => zoom > 1 ? (low[axis] + high[axis]) / 2 - zoom * place[axis] : 0);
    nv.setPan2Dxyzmm([...pan, zoom]);
  }

  // Shows a place in world mm.
  function goTo(nv, place) {
    nv.scene.crosshairPos = nv.mm2frac(place, 0, true);
    zoomTo(nv);
    nv.createOnLocationChange();
  }

  // Moves the crosshair by some voxels. Where they are zoomed, the planes across its way go along.
  function move(nv, voxels) {
    const before = nv.frac2mm(nv.scene.crosshairPos);
    nv.moveCrosshairInVox(...voxels);
    const after = nv.frac2mm(nv.scene.crosshairPos), [...pan] = nv.scene.pan2Dxyzmm;
    for (const axis of [0, 1, 2]) {
      if (pan[3] > 1 && voxels[axis]) pan[axis] -= pan[3] * (after[axis] - before[axis]);
    }
    nv.setPan2Dxyzmm(pan);
  }

  // Wheel and keys do what the page says, and nothing of NiiVue's own: its listeners come after these, and are kept from them.
  function listen(nv) {
    const steps = {
      ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [0, 1, 0], PageDown: [0, -1, 0],
    };
    screen.addEventListener("keydown", event => {
      event.stopImmediatePropagation();
      if (!(event.key in steps) || !nv.volumes.length) return;
      event.preventDefault();
      move(nv, steps[event.key]);
    });
    screen.addEventListener("keyup", event => event.stopImmediatePropagation());
    // The wheel scrolls the page until somebody has clicked into the planes.
    screen.addEventListener("wheel", event => {
      event.stopImmediatePropagation();
      if (document.activeElement !== screen) return;
      event.preventDefault();
      const tile = nv.tileIndex(event.offsetX * nv.uiData.dpr, event.offsetY * nv.uiData.dpr), step = -Math.sign(event.deltaY);
      if (tile >= 0) move(nv, [[0, 0, step], [0, step, 0], [step, 0, 0]][nv.screenSlices[tile].axCorSag]);
    }, {passive: false});
    // A double click or a long touch would set the CT to a window that is not the chosen one.
    nv.resetBriCon = () => {};
  }

  function showValues(location) {
    const values = Object.fromEntries(location.values.map(value => [value.name.split(".")[0], value.value]));
    const [x, y, z] = [...location.mm].map(number => number.toFixed(0));
    const parts = [`SUV ${values.pet.toFixed(2)}`];
    if ("ct" in values) parts.push(`${values.ct.toFixed(0)} HU`);
    for (const role of Object.keys(lesions)) {
      if (values[role] > 0) parts.push(`${role}: lesion ${values[role]}`);
    }
    parts.push(`x ${x}, y ${y}, z ${z} mm`);
    element("values").textContent = parts.join(" · ");
  }

  function connect(nv) {
    const volumes = Object.fromEntries(nv.volumes.map(volume => [volume.name.split(".")[0], volume]));
    const settings = () => {
      const {pet, ct} = volumes, suv = Number(element("suv").value);
      document.querySelector("output[for=suv]").textContent = suv;
      // A new colour map takes the range of the whole image, so ours comes after it.
      pet.colormap = element("colours").value;
      [pet.cal_min, pet.cal_max] = [0, suv];
      if (ct) {
        [ct.cal_min, ct.cal_max] = element("window").value.split(" ").map(Number);
        pet.opacity = Number(element("opacity").value);
      }
      for (const box of viewer.querySelectorAll("[data-mask]")) {
        const mask = volumes[box.dataset.mask];
        mask.opacity = Number(element("fill").value);
        // An outline is drawn at any opacity, so a mask that is switched off is taken out.
        if (box.checked === nv.volumes.includes(mask)) continue;
        if (!box.checked) nv.removeVolume(mask);
        else {
          nv.addVolume(mask);
          // It comes back to where it was: what is drawn later covers what is drawn before.
          nv.setVolume(mask, Object.values(volumes).filter(volume => nv.volumes.includes(volume)).indexOf(mask));
        }
      }
      nv.updateGLVolume();
    };
    for (const control of viewer.querySelectorAll(".switches input:not(#zoom), .switches select")) {
      control.addEventListener("input", settings);
    }
    element("zoom").addEventListener("input", () => zoomTo(nv));
    settings();
  }

  async function start() {
    element("open").hidden = true;
    element("state").textContent = "Loading …";
    await Promise.all([loadScript(viewer.dataset.program), loadScript(viewer.dataset.volumes)]);
    const nv = new niivue.Niivue({
      isRadiologicalConvention: true, sagittalNoseLeft: true, loadingText: "", logLevel: "error", dragAndDropEnabled: false,
      crosshairColor: [.35, .8, 1, .8], crosshairWidth: .25, crosshairWidthUnit: "percent", crosshairGap: 8, scrollRequiresFocus: true,
      dragMode: niivue.DRAG_MODE.pan, fontColor: [.9, .9, .9, 1], fontMinPx: 16, atlasOutline: 1,
    });
    listen(nv);
    await nv.attachToCanvas(screen);
    for (const [name, base64] of Object.entries(window.petctVolumes)) nv.addVolume(await readVolume(name, base64));
    delete window.petctVolumes;
    nv.onLocationChange = showValues;
    connect(nv);
    arrange(nv);
    new ResizeObserver(() => arrange(nv)).observe(screen);
    viewer.querySelector(".switches").hidden = false;
    element("state").textContent = "";
    nv.createOnLocationChange();
    return nv;
  }

  function open() {
    opened = opened || start().catch(error => {
      element("state").textContent = `The viewer cannot start: ${error.message || error} It needs a browser with WebGL 2.`;
      throw error;
    });
    return opened;
  }

  async function show(row) {
    for (const other of document.querySelectorAll("tr.shown")) other.classList.remove("shown");
    row.classList.add("shown");
    const box = viewer.getBoundingClientRect();
    if (box.top > innerHeight / 2 || box.bottom < innerHeight / 2) viewer.scrollIntoView({block: "start"});
    const nv = await open();
    if (Number(element("zoom").value) === 1) element("zoom").value = 2;
    goTo(nv, row.dataset.place.split(" ").map(Number));
    viewer.dataset.shown = row.dataset.place;
  }

  if (viewer) {
    element("open").addEventListener("click", () => open().catch(() => {}));
    for (const row of document.querySelectorAll("tr[data-place]")) row.addEventListener("click", () => show(row).catch(() => {}));
  }
}
