import { type AllowedRevision, type Environment, NO_REVISION, type RenderedObject } from '../model/index.ts';

/** Returns an AllowedRevision with no objects, used to remove what a failed first revision wrote. */
export function allowNothing(environment: Environment, verdictIndex: number): AllowedRevision {
  return allow(environment, NO_REVISION, verdictIndex, [], ['empty']);
}

/** Makes the AllowedRevision of a verdict that is on the ledger. Nothing else in the code makes one. */
export function allow(
  environment: Environment,
  revision: string,
  verdict: number,
  objects: readonly RenderedObject[],
  allows: readonly string[],
): AllowedRevision {
  return { environment: environment.metadata.name, revision, verdict, objects, allows } as unknown as AllowedRevision;
}
