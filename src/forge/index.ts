/**
 * Takes a forge's address and a pull or merge request, gives its reviews as the forge states them, with its own answer.
 * Refuses answers that are not shaped as the forge documents them; believes nothing about who a reviewer is but their
 * number.
 */
export { defaultApiUrl, type Forge, type ForgeAddress, type ForgeRequest, fetchReviews } from './fetch-reviews.ts';
export { githubAppToken } from './github-app.ts';
