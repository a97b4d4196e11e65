(function () {
  "use strict";
  function value(cell) {
    var text = cell.textContent.trim();
    if (text === "inf") return Infinity;
    if (text === "-inf") return -Infinity;
    return text === "" ? NaN : Number(text);
  }
  var table = document.getElementById("summary");
  var more = document.getElementById("more");
  function fold() {
    if (!table) return;
    var most = Number(table.dataset.short);
    Array.prototype.forEach.call(table.tBodies[0].rows, function (row, k) {
      row.classList.toggle("over", k >= most);
    });
  }
  function compare(column, bySize, sign) {
    return function (a, b) {
      if (column === 0) return sign * (a.dataset.k - b.dataset.k);
      var u = value(a.cells[column]), v = value(b.cells[column]);
      if (isNaN(u) && isNaN(v)) {
        return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
      }
      if (isNaN(u) || isNaN(v)) return isNaN(u) - isNaN(v);
      return u === v ? 0 : sign * (bySize ? Math.abs(u) - Math.abs(v) : u - v);
    };
  }
  if (table) {
    var body = table.tBodies[0];
    var heads = Array.prototype.slice.call(table.tHead.rows[0].cells);
    Array.prototype.forEach.call(body.rows, function (row, k) { row.dataset.k = k; });
    heads.forEach(function (head, column) {
      head.firstElementChild.addEventListener("click", function () {
        // Numbers start with the largest, the labels with the model's own order.
        var up = head.getAttribute("aria-sort") === "descending";
        if (column === 0) up = head.getAttribute("aria-sort") !== "ascending";
        var order = compare(column, head.dataset.size, up ? 1 : -1);
        Array.prototype.slice.call(body.rows).sort(order).forEach(function (row) { body.appendChild(row); });
        heads.forEach(function (h) { h.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        fold();
      });
    });
    if (more) {
      var short = true;
      var show = function () {
        table.classList.toggle("short", short);
        more.textContent = short ? "Show all " + table.tBodies[0].rows.length + " rows" : "Show fewer";
        more.setAttribute("aria-expanded", String(!short));
      };
      more.hidden = false;
      more.addEventListener("click", function () { short = !short; show(); });
      fold();
      show();
    }
  }
  function height(points, x) {
    for (var k = 1; k < points.numberOfItems; k++) {
      var a = points.getItem(k - 1), b = points.getItem(k);
      if (a.x <= x && x <= b.x) return a.y + (b.y - a.y) * (x - a.x) / Math.max(b.x - a.x, 1e-9);
    }
    return NaN;
  }
  function warp(v, knee) { return knee ? Math.sign(v) * Math.log1p(Math.abs(v) / knee) : v; }
  function unwarp(v, knee) { return knee ? Math.sign(v) * Math.expm1(Math.abs(v)) * knee : v; }
  function short_number(v) {
    return Math.abs(v) >= 1e5 || (v && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(4));
  }
  document.querySelectorAll("svg[data-x]").forEach(function (svg) {
    var curves = svg.querySelectorAll("polyline[data-name]");
    if (!curves.length) return;
    var figure = svg.closest("figure");
    var tip = document.createElement("div");
    var cross = document.createElementNS("http://www.w3.org/2000/svg", "path");
    var xs = svg.dataset.x.split(" ").map(Number), ys = svg.dataset.y.split(" ").map(Number);
    tip.className = "tip";
    tip.hidden = true;
    cross.setAttribute("class", "cross");
    svg.appendChild(cross);
    figure.appendChild(tip);
    function leave() { tip.hidden = true; cross.removeAttribute("d"); }
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", function (event) {
      var box = svg.getBoundingClientRect(), frame = figure.getBoundingClientRect();
      var scale = svg.viewBox.baseVal.width / box.width;
      var x = (event.clientX - box.left) * scale;
      if (x < xs[0] || x > xs[0] + xs[1]) return leave();
      var words = [short_number(xs[2] + (x - xs[0]) / xs[1] * (xs[3] - xs[2]))];
      curves.forEach(function (curve) {
        var y = height(curve.points, x), low = warp(ys[2], ys[4]), high = warp(ys[3], ys[4]);
        if (isNaN(y)) return;
        var share = 1 - (y - ys[0]) / ys[1];
        words.push(curve.dataset.name + " " + short_number(unwarp(low + share * (high - low), ys[4])));
      });
      cross.setAttribute("d", "M" + x + " " + ys[0] + "v" + ys[1]);
      tip.textContent = words.join("  \u00b7  ");
      tip.hidden = false;
      var left = event.clientX - frame.left - tip.offsetWidth / 2;
      tip.style.left = Math.max(0, Math.min(left, frame.width - tip.offsetWidth)) + "px";
      tip.style.top = Math.max(0, event.clientY - frame.top - 38) + "px";
    });
  });
})();
