/**
 * Takes the entries of a period with their evidence. Returns a report model, its PDF and a signed manifest, and checks
 * such a set offline. All output is a pure function of the entries. Refuses a set whose parts do not prove each other.
 */
export { buildReport } from './build-report.ts';
export type { ReportInput, ReportSubject } from './input.ts';
export type { ExceptionRecord, ReportDefinition, ReportDocument, ReportModel } from './model.ts';
export { exceptionOf } from './register.ts';
export { renderPdf } from './render-pdf.ts';
export { fileShelf } from './shelf.ts';
export { signOffOf } from './sign-off.ts';
export {
  type RecordedVerdict,
  type ReportVerifier,
  verifyReport,
} from './verify-report.ts';
export {
  CHECKER,
  type ReportFile,
  type ReportMaterial,
  type SignedChange,
  writeReport,
} from './write-report.ts';
