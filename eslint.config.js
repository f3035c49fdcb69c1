// Few rules, each for a reason. The formatter is Prettier, and types are checked by tsc.
import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["*", "!src/", "!eslint.config.js"] },
  // Mistakes: names that do not exist, conditions that never hold, values that are never used.
  js.configs.recommended,
  {
    files: ["src/**/*.js"],
    languageOptions: { ecmaVersion: 2022, sourceType: "module", globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      // Functions and files that fit the reader's head.
      "max-lines": ["error", { max: 450 }],
      "max-lines-per-function": ["error", { max: 50, skipComments: true, skipBlankLines: true }],
      complexity: ["error", 12],
      // Nested conditional expressions have to be read inside out: an early return says the same.
      "no-nested-ternary": "error",
      // One spelling where the language has several.
      eqeqeq: "error",
      "no-var": "error",
      "prefer-const": "error",
      "object-shorthand": "error",
      "prefer-template": "error",
      // Text from files and labels must never run as code; see also tests/explorer/test_bundle.py.
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-script-url": "error",
      // The modules are joined into one script for pages from disk: every export has a name.
      "no-restricted-syntax": ["error", "ExportDefaultDeclaration", "ImportNamespaceSpecifier"],
      "no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
    },
  },
];
