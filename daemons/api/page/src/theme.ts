// Dark or light: as the system says, unless somebody chooses.

import { byId } from "./dom";

const CHOICE = "novacron-theme";

export function chooseTheme(): void {
  const select = byId("theme", HTMLSelectElement);
  const show = (theme: string): void => {
    if (theme === "light" || theme === "dark") {
      document.documentElement.dataset["theme"] = theme;
    } else {
      delete document.documentElement.dataset["theme"];
    }
  };
  const chosen = localStorage.getItem(CHOICE) ?? "system";
  select.value = chosen;
  show(chosen);
  select.addEventListener("change", () => {
    localStorage.setItem(CHOICE, select.value);
    show(select.value);
  });
}
