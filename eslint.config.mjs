import tseslint from "typescript-eslint";

/** Calls that make behaviour depend on the outside; they come in through ports (conventions §3). */
const impure = [
  { object: "Date", property: "now", message: "take a Clock" },
  { object: "performance", property: "now", message: "take a Clock" },
  { object: "Math", property: "random", message: "take a Random" },
];

export default tseslint.config(
  {
    ignores: [
      "dist",
      "node_modules",
      "coverage",
      "scripts",
      "src/ui/assets",
      "**/*.mjs",
      "vitest.config.ts",
      ".dependency-cruiser.mjs",
    ],
  },
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": "off",
      "@typescript-eslint/no-unnecessary-condition": "off",
      "@typescript-eslint/require-await": "off",
      // A port hands out an opaque node; its adapter knows its own class again.
      "@typescript-eslint/no-unsafe-class-instance-assignment": "off",
      "@typescript-eslint/no-unused-vars": ["error", { ignoreRestSiblings: true }],
      "max-len": [
        "error",
        {
          code: 100,
          ignoreUrls: true,
          ignoreStrings: true,
          ignoreTemplateLiterals: true,
          ignoreRegExpLiterals: true,
        },
      ],
    },
  },
  {
    files: ["src/**"],
    ignores: ["src/daemon/effects/**"],
    rules: {
      "no-restricted-properties": ["error", ...impure],
      "no-console": "error",
    },
  },
  {
    files: ["test/**"],
    rules: {
      "@typescript-eslint/no-non-null-assertion": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-argument": "off",
    },
  },
);
