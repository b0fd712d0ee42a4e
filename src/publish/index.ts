/**
 * Takes a ledger and a period; returns the files of a report, made in a separate thread. `report/` decides their
 * content. Refuses a ledger that does not verify.
 */

export { deliverReport } from './deliver-report.ts';
export { makeReport } from './make-report.ts';
export { readInput } from './report-input.ts';
export { recheckSigned } from './signed-objects.ts';
