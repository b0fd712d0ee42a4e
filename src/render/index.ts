/**
 * Takes the files of one directory of a commit, gives the Kubernetes objects they hold, each with file and line.
 * Substitutes declared texts first, so that all of it is about what the cluster is given. Refuses text that is not
 * YAML, documents that are not objects, one object written twice, links and submodules, and more of anything than its
 * limits.
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
