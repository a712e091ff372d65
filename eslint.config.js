// Lints the page's own JavaScript: npm ci && npm run lint.
const js = require("@eslint/js");
const globals = require("globals");

// Gradio runs a component's files as one function; components.py puts them together, so each sees the others' functions.
const fromGradio = ["element", "props", "trigger", "watch"];
const ofOtherFiles = [
  "part", "follow", // common.js
  "paint", "sheetStore", // sheets.js
  "zoomable", "rightDrag", // gestures.js
  "placeOn", "scaleBar", "ruler", // measure.js
  "tellCrosshair", "hearCrosshair", "spaceOf", // crosshair.js
  "sendAll", // uploads.js
];

module.exports = [
  js.configs.recommended,
  {
    files: ["demo/panels/browser/*.js"],
    languageOptions: {
      sourceType: "script",
      globals: {
        ...globals.browser,
        ...Object.fromEntries([...fromGradio, ...ofOtherFiles].map((name) => [name, "readonly"])),
      },
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "no-unused-vars": ["error", { vars: "local" }], // a file's own functions are called by Python's `templates`
      "no-redeclare": ["error", { builtinGlobals: false }],
      "no-var": "error",
      "prefer-const": ["error", { destructuring: "all" }],
      eqeqeq: "error",
      curly: ["error", "multi-line"],
      "no-implicit-globals": "off",
      "no-shadow": "error",
    },
  },
];
