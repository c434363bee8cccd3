const only = (from, allowed, comment) => ({
  name: `${from}-imports`,
  comment,
  severity: "error",
  from: { path: `^src/${from}/` },
  to: { path: "^src/", pathNot: `^src/(${allowed.join("|")})/` },
});

export default {
  forbidden: [
    only("domain", ["domain"], "the domain imports nothing but itself"),
    only("storage", ["storage", "domain"], "storage knows the domain only"),
    only("gossip", ["gossip", "domain"], "gossip knows the domain only"),
    {
      name: "libp2p-in-one-place",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/gossip/libp2p/" },
      to: { path: "node_modules/(libp2p|@libp2p|@chainsafe|@multiformats)/" },
    },
    only("ui", ["ui", "domain"], "ui knows the domain only"),
    {
      name: "domain-is-pure",
      severity: "error",
      from: { path: "^src/domain/" },
      to: { dependencyTypes: ["core", "npm"], pathNot: "node_modules/zod" },
    },
    {
      name: "across-folders-through-index",
      severity: "error",
      from: { path: "^src/(storage|gossip|ui|daemon)/" },
      to: { path: "^src/domain/", pathNot: "^src/domain/(index|core)\\.ts$" },
    },
    {
      name: "siblings-through-index",
      severity: "error",
      from: { path: "^src/daemon/" },
      to: { path: "^src/(storage|gossip|ui)/", pathNot: "^src/(storage|gossip|ui)/index\\.ts$" },
    },
    { name: "no-circular", severity: "error", from: {}, to: { circular: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "node"] },
  },
};
