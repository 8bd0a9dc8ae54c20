"use strict";
// Names are in order as people count: 2 before 10.
const inOrder = new Intl.Collator("en", {numeric: true}).compare;

// What names are searched by: no difference of case, nor of how an accent is written, which macOS takes apart.
function letters(text) {
  return text.normalize("NFC").toLowerCase();
}
