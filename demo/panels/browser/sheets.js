// Draws slices out of sheets. A sheet is a picture that holds all slices of a clip in the same rows and columns
// (viewer.py), so that every sheet has a slice in the same cell.

// Paints each cell of a grid from its own frame and place, frame * cells + place: one cell for a slice as it is, one cell
// per token for a slice that is put together from others.
function paint(canvas, sheet, layout, cells, [rows, columns] = [1, 1]) {
  const width = sheet.width / layout.columns, height = sheet.height / layout.rows;
  const box = [width / columns, height / rows], count = rows * columns;
  const corner = (place) => [(place % columns) * box[0], Math.floor(place / columns) * box[1]];
  const painter = Object.assign(canvas, { width, height }).getContext("2d", { willReadFrequently: true });
  cells.forEach((cell, index) => {
    const frame = Math.floor(cell / count), [x, y] = corner(cell % count);
    const left = (frame % layout.columns) * width, top = Math.floor(frame / layout.columns) * height;
    painter.drawImage(sheet, left + x, top + y, ...box, ...corner(index), ...box);
  });
}

// Loads the pictures and the style of messages; asks for a new drawing whenever a picture has arrived.
function sheetStore(styled, draw) {
  const sheets = {}, known = {};
  return {
    sheets,
    isNew: (name, text) => known[name] !== text,
    isComplete: () => Object.values(sheets).every((sheet) => sheet.complete),
    take(message) {
      for (const [name, text] of Object.entries({ ...message.style, ...message.sheets })) {
        if (known[name] === text) continue;
        known[name] = text;
        if (name.startsWith("--")) styled.style.setProperty(name, text);
        else sheets[name] = Object.assign(new Image(), { onload: draw, src: text });
      }
    },
  };
}
