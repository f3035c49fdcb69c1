(() => {
  const form = document.querySelector("form.controls");
  if (!form) return;
  form.hidden = false;
  const root = document.documentElement;
  const apply = () => {
    root.dataset.drawing = form.elements.drawing.value;
    root.style.setProperty("--opacity", form.elements.opacity.value / 100);
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
})();
