/**
 * Takes a remote or a checkout. Returns commits, trees and blobs whose bytes were hashed again here. Refuses shallow
 * repositories, objects whose bytes do not hash to their id, and commits with an ambiguous header.
 */

export type { GitAccess } from './access.ts';
export { CheckpointRef, sshSignature } from './checkpoint-ref.ts';
export { diffTrees, listTree, readBlob, readCommit, readCommits } from './history.ts';
export { IsomorphicRepository } from './isomorphic-repository.ts';
export { NativeRepository } from './native-repository.ts';
export { verifyObjectId } from './object.ts';
export { openRepository } from './open-repository.ts';
export { parseCommit } from './parse-commit.ts';
export { parseTag } from './parse-tag.ts';
export { parseTree } from './parse-tree.ts';
export { APPROVALS_REF, type Repository, redactUrl, sourceRef } from './repository.ts';
export { RunBeside } from './run-beside.ts';
export type { GitProgram } from './run-git.ts';
export { signWithGitKey } from './sign-with-git-key.ts';
export { sourceRepository } from './source-repository.ts';
export { UserRepository } from './user-repository.ts';
