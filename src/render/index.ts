/**
 * Takes the files of one directory of a commit. Returns the Kubernetes objects in them, each with file and line.
 * Declared texts are substituted first, so that everything refers to the objects the cluster gets. Refuses invalid
 * YAML, documents that are not objects, duplicate objects, links and submodules, and anything above its limits.
 */
export { encryptionProblems } from './encrypted.ts';
export { KEPT_OF_ALL, Kept } from './kept.ts';
export {
  exceeded,
  measure,
  NO_SIZE,
  type ProcessLimits,
  type RenderLimits,
  type RenderSize,
  sumOf,
  tooLarge,
} from './limits.ts';
export {
  type Declared,
  gather,
  isManifest,
  type MadeDocument,
  type ReadFile,
  type RenderedFile,
  type Rendering,
  readFiles,
  render,
  renderFile,
  renderMade,
  type SourceFile,
  withPlaces,
} from './render.ts';
