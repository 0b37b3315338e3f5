"""The pages of ``ambiseg view``: images with their masks and probabilities in a browser.

A gallery lists images and reads one at a time (`ambiseg.viewer.gallery`). A record is what the page shows of one
(`ambiseg.viewer.record`). `ambiseg.viewer.site` writes all of it into a folder, `ambiseg.viewer.server` hands it out
when a browser asks. Both have the same files below the page, so the page does not know which of them it has::

    index.html, viewer.css, *.js     the page itself, the same for all data
    list.js                          names of the images
    images/0.js, images/0.png, ...   masks and figures of an image, and its picture

Data are scripts that call one function, since a page opened from a disk may not fetch files.
"""
