// Small helps of this book: boxes that scroll by keyboard, solutions that a link points to, formulas
// wider than a phone, names for buttons that only carry an icon.
"use strict";
(() => {
  const scrolls = (element) =>
    element.scrollWidth > element.clientWidth + 1 &&
    ["auto", "scroll"].includes(getComputedStyle(element).overflowX);

  // Left and right turn the page, except where they move a box of code that has the focus.
  document.addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    if (event.target instanceof Element && event.target !== document.body && scrolls(event.target))
      event.stopPropagation();
  }, true);

  // A link to a solution, or to something inside it, opens it.
  const open = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    const box = name && document.getElementById(name)?.closest(".toggle-hidden");
    if (!box) return;
    box.querySelector("button.toggle-button")?.click();
    box.scrollIntoView();
  };

  const name = () => {
    document.querySelectorAll("button.copybtn").forEach((b) => (b.ariaLabel = "Copy the code"));
    document.querySelectorAll(".solution button.toggle-button").forEach((button) => {
      button.ariaLabel = "Show or hide the solution";
    });
  };

  // Inline formulas that do not fit into the line scroll by themselves; what scrolls is a stop of
  // the tab key (the theme sees to code).
  const fit = () => {
    document.querySelectorAll("span.math > mjx-container").forEach((formula) => {
      const room = formula.closest("p, li, dd, td, figcaption, section");
      if (room) formula.classList.toggle("wide", formula.scrollWidth > room.clientWidth);
    });
    document.querySelectorAll("mjx-container, .pst-scrollable-table-container").forEach((box) => {
      if (scrolls(box)) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    });
  };

  // A box inside a closed solution has no width: the theme and fit look again when it opens.
  document.addEventListener("click", ({target}) => {
    if (target.closest(".toggle > .admonition-title")) window.dispatchEvent(new Event("resize"));
  });

  window.addEventListener("load", () => {
    name();
    open();
    fit();
    window.MathJax?.startup?.promise?.then(fit);
  });
  window.addEventListener("hashchange", open);
  window.addEventListener("resize", fit);
})();
