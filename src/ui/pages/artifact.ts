import type { ArtifactInfo } from "../../domain/index.ts";
import { commandLines } from "../command-lines.ts";
import { commandBox, copyable, facts, statusMark, timeAgo } from "../fragments/bits.ts";
import { lazy } from "../fragments/why.ts";
import { formatBytes } from "../format.ts";
import { html, join, type Html } from "../html.ts";
import { status } from "../status.ts";

export const artifactPage = (artifact: ArtifactInfo, now: number): Html => {
  const id = artifact.artifact_id;
  return html`<div class="head">
      <div>
        <p class="crumb"><a href="/ui/storage">Storage</a></p>
        <h1>Root filesystem ${statusMark(status(artifact.status))}</h1>
        <p class="lead">${artifact.source_image_ref}</p>
      </div>
    </div>
    <section>
      <h2>Why is it still here?</h2>
      ${lazy(`why-${id}`, `/ui/artifacts/${id}/why`, "See why it is still here")}
    </section>
    <section class="split">
      <div class="card">
        <h2>Facts</h2>
        ${facts([
          ["Artifact", copyable(id)],
          ["Digest", artifact.digest === "" ? undefined : copyable(artifact.digest)],
          ["Size", formatBytes(artifact.ext4_size_bytes)],
          ["Data in it", formatBytes(artifact.data_bytes)],
          ["Image", copyable(artifact.source_image_ref)],
          ["Image digest", copyable(artifact.source_image_digest)],
          ["Last error", artifact.last_error],
          [
            "On nodes",
            artifact.holders.length === 0
              ? "none"
              : join(
                  artifact.holders.map((node) => html`<a href="/ui/nodes/${node}">${node}</a> `),
                ),
          ],
          ["Created", timeAgo(artifact.created_at, now)],
          ["Changed", timeAgo(artifact.updated_at, now)],
        ])}
      </div>
      <div class="card">
        <h2>From the command line</h2>
        ${commandBox(commandLines.whyArtifact(id), "Why")}
        ${commandBox(commandLines.collectPreview(), "Garbage")}
      </div>
    </section>`;
};
