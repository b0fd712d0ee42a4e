/**
 * Takes the files of one directory of a commit, gives the Kubernetes objects they hold, each with file and line.
 * Refuses text that is not YAML, documents that are not objects, one object written twice, links and submodules.
 */
export { encryptionProblems } from './encrypted.ts';
export { gather, type RenderedFile, type Rendering, render, renderFile, renderMade, type SourceFile } from './render.ts';
export { substitute } from './substitute.ts';
